/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Into the tunnel without the kernel's VXLAN device: the outer header is written here, as the
 * device would write it, and the packet leaves by the route to the other node. What is in any
 * way unusual is left to the device.
 */
#ifndef OUTGATE_OUTER_H
#define OUTGATE_OUTER_H

#include "config.h"
#include "context.h"
#include "outer_header.h"
#include "verdict.h"

/* The way to another node; of its addresses, unions where IPv4 has the first word. */
struct tunnel_route {
	__u32 ifindex;
	__u16 generation; /* of routes */
	__u16 mtu; /* of the outer packet */
	__u32 next_hop_family;
	struct any_address next_hop;
	struct any_address source;
};

/* Not pinned: looked up anew by each program. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, sizeof(struct ip_address));
	__uint(value_size, sizeof(struct tunnel_route));
	__uint(max_entries, 4096);
} tunnel_routes SEC(".maps");

static __always_inline const struct tunnel_route *
tunnel_route(struct context *context, const struct runtime_config *config,
	     const struct ip_address *endpoint)
{
	const struct tunnel_route *known = bpf_map_lookup_elem(&tunnel_routes, endpoint);
	struct tunnel_route fresh = { .generation = config->route_generation };
	struct bpf_fib_lookup *fib = &context->work->fib;

	if (known && known->generation == fresh.generation)
		return known;
	*fib = outer_route_query(endpoint);
	if (bpf_fib_lookup(context->skb, fib, sizeof(*fib),
			   FIB_LOOKUP_SRC | FIB_LOOKUP_SKIP_NEIGH))
		return 0;
	fresh.ifindex = fib->ifindex;
	fresh.mtu = fib->mtu_result;
	fresh.next_hop_family = fib->family;
	__builtin_memcpy(&fresh.next_hop, fib->ipv6_dst, sizeof(fresh.next_hop));
	__builtin_memcpy(&fresh.source, fib->ipv6_src, sizeof(fresh.source));
	if (bpf_map_update_elem(&tunnel_routes, endpoint, &fresh, BPF_ANY))
		return 0;
	return bpf_map_lookup_elem(&tunnel_routes, endpoint);
}

/* Make room for @outer behind the link's header, and put it there. */
static __always_inline int outer_put(struct context *context, const void *outer, __u32 size,
				     __be16 protocol, __u64 flags)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(context->skb, size, BPF_ADJ_ROOM_MAC,
				flags | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
					BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
					BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN)))
		return 0;
	if (bpf_skb_store_bytes(context->skb, ETH_HLEN, outer, size, BPF_F_RECOMPUTE_CSUM))
		return -DROP_REWRITE;
	eth = context_start(context);
	if ((void *)(eth + 1) > context_end(context))
		return -DROP_REWRITE;
	/* The neighbour's comes later; to a group's address nothing is sent. */
	__builtin_memset(eth, 0, 2 * ETH_ALEN);
	eth->h_proto = protocol;
	return 1;
}

static __always_inline int outer_put_v4(struct context *context, const struct inner_view *view,
					const struct tunnel_route *route, __be32 destination)
{
	__u32 size = context_size(context) - ETH_HLEN + sizeof(struct outer_v4);
	struct outer_v4 outer;

	outer_fill_v4(&outer, view, route->source.word[0], destination,
		      outer_port(&context->work->packet.tuple), size);
	return outer_put(context, &outer, sizeof(outer), bpf_htons(ETH_P_IP),
			 BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
}

#if OUTGATE_FAMILY == 6
static __always_inline int outer_put_v6(struct context *context, const struct inner_view *view,
					const struct any_address *source,
					const struct ip_address *destination)
{
	__u32 size = context_size(context) - ETH_HLEN + sizeof(struct outer_v6);
	struct outer_v6 outer;

	outer_fill_v6(&outer, view, source, destination,
		      outer_port(&context->work->packet.tuple), size);
	return outer_put(context, &outer, sizeof(outer), bpf_htons(ETH_P_IPV6),
			 BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);
}
#endif

static __always_inline int outer_write(struct context *context, const struct inner_view *view,
				       const struct runtime_config *config,
				       const struct tunnel_route *route,
				       const struct ip_address *endpoint)
{
#if OUTGATE_FAMILY == 6
	if (!is_outer_v4(endpoint)) {
		if (view->sum < 0)
			return 0;
		return outer_put_v6(context, view, outer_source(config, &route->source), endpoint);
	}
#endif
	(void)config;
	return outer_put_v4(context, view, route, endpoint->word[ADDRESS_WORDS - 1]);
}

/**
 * outer_send - write the outer header and send the packet to the node @endpoint
 *
 * Not inlined, to have a stack of its own. Packet pointers are invalid afterwards.
 * Return: the redirect's verdict; 0 where it is for the device, and as it was; -DROP_REWRITE.
 */
static __noinline int outer_send(struct context *context, const struct ip_address *endpoint)
{
	const struct runtime_config *config = runtime_config();
	struct bpf_redir_neigh next_hop = {};
	const struct tunnel_route *route;
	struct inner_view view;
	__u32 size, ifindex;
	int result;

	if (settings.tunnel_way != TUNNEL_AUTO || !settings.tunnel_port || !config ||
	    context->skb->gso_size || inner_read(context, &view))
		return 0;
	route = tunnel_route(context, config, endpoint);
	if (!route)
		return 0;
	size = context_size(context) - ETH_HLEN;
	if (!fits_tunnel(size, config, endpoint, route->mtu))
		/* The device fragments it. */
		return 0;
	ifindex = route->ifindex;
	next_hop.nh_family = route->next_hop_family;
	__builtin_memcpy(&next_hop.ipv6_nh, &route->next_hop, sizeof(route->next_hop));
	result = outer_write(context, &view, config, route, endpoint);
	if (result <= 0)
		return result;
	context_mark(context, settings.mark_mask, settings.mark_translated);
	return bpf_redirect_neigh(ifindex, &next_hop, sizeof(next_hop), 0);
}

#endif
