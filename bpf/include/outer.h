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
#include "vxlan.h"
#include "verdict.h"

#define TUNNEL_TTL 64

/* BPF_FIB_LOOKUP_SRC of Linux 6.7, and _SKIP_NEIGH of 6.3; older kernels refuse them. */
#define FIB_LOOKUP_SKIP_NEIGH (1U << 2)
#define FIB_LOOKUP_SRC (1U << 4)

/* The node itself sends, as the device does: rules about where packets come in by do not count. */
#define LOOPBACK_IFINDEX 1

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

/* Is the outer header one of IPv4? */
static __always_inline _Bool is_outer_v4(const struct ip_address *endpoint)
{
#if OUTGATE_FAMILY == 4
	(void)endpoint;
	return 1;
#else
	return address_is_mapped(endpoint);
#endif
}

static __always_inline const struct tunnel_route *
tunnel_route(struct context *context, const struct runtime_config *config,
	     const struct ip_address *endpoint)
{
	const struct tunnel_route *known = bpf_map_lookup_elem(&tunnel_routes, endpoint);
	struct bpf_fib_lookup fib = {
		.family = is_outer_v4(endpoint) ? AF_INET : AF_INET6,
		.ifindex = LOOPBACK_IFINDEX,
		.tot_len = 1, /* asks for the route's MTU */
	};
	struct tunnel_route fresh = { .generation = config->route_generation };

	if (known && known->generation == fresh.generation)
		return known;
	if (is_outer_v4(endpoint))
		fib.ipv4_dst = endpoint->word[ADDRESS_WORDS - 1];
	else
		__builtin_memcpy(fib.ipv6_dst, endpoint, sizeof(*endpoint));
	if (bpf_fib_lookup(context->skb, &fib, sizeof(fib),
			   FIB_LOOKUP_SRC | FIB_LOOKUP_SKIP_NEIGH))
		return 0;
	fresh.ifindex = fib.ifindex;
	fresh.mtu = fib.mtu_result;
	fresh.next_hop_family = fib.family;
	__builtin_memcpy(&fresh.next_hop, fib.ipv6_dst, sizeof(fresh.next_hop));
	__builtin_memcpy(&fresh.source, fib.ipv6_src, sizeof(fresh.source));
	if (bpf_map_update_elem(&tunnel_routes, endpoint, &fresh, BPF_ANY))
		return 0;
	return bpf_map_lookup_elem(&tunnel_routes, endpoint);
}

/* The source port that the kernel's device takes: of one flow the same by either way. */
static __always_inline __be16 outer_port(struct context *context)
{
	__u32 hash = bpf_get_hash_recalc(context->skb);

	hash ^= hash << 16;
	return bpf_htons(OUTER_PORT_FIRST +
			 ((__u64)hash * (OUTER_PORT_LAST - OUTER_PORT_FIRST) >> 32));
}

/* RFC 6040: what a router may mark goes out, that one has marked it does not. */
static __always_inline __u8 outer_ecn(__u8 inner)
{
	return (inner & ECN_MASK) == ECN_CE ? ECN_ECT_0 : inner & ECN_MASK;
}

static __always_inline void outer_tail_write(struct outer_tail *tail, __be16 source_port,
					     __u32 size)
{
	tail->udp.source = source_port;
	tail->udp.dest = bpf_htons(settings.tunnel_port);
	tail->udp.len = bpf_htons(size);
	tail->udp.check = 0;
	tail->vxlan.flags = VXLAN_VNI_IS_VALID;
	tail->vxlan.vni = bpf_htonl(settings.tunnel_vni << 8);
}

/*
 * What the inner packet adds to the outer UDP checksum, or -1 where only the whole packet
 * would tell. Behind a plain header TCP, UDP and ICMPv6 sum up to zero together with their
 * pseudo header, also if a device is to complete that (the kernel's "local checksum offload").
 * So the addresses cancel out, and what is left is told by the header alone.
 */
static __always_inline __s64 inner_sum(const struct ipv6hdr *ip, const void *end)
{
	const struct udphdr *udp = (const void *)(ip + 1);

	if (ip->nexthdr == IPPROTO_UDP) {
		if ((const void *)(udp + 1) > end || !udp->check)
			return -1;
	} else if (ip->nexthdr != IPPROTO_TCP && ip->nexthdr != NEXT_ICMPV6) {
		return -1;
	}
	return words_sum(ip, 2) + *(const __u16 *)&ip->nexthdr +
	       (__u16)~bpf_htons(ip->nexthdr);
}

/* What the inner header says, and whether the packet is one to be written here. */
struct inner_view {
	struct ethhdr eth;
	__u8 ecn;
	__s64 sum; /* see inner_sum() */
};

/* Return 0, or -1 where the packet is not plain. Parts keep their order behind the device. */
static __always_inline int inner_read(struct context *context, struct inner_view *view)
{
	const struct ethhdr *eth = context_start(context);
	const struct ip_header *ip = (const void *)(eth + 1);

	if (context->skb->gso_size || (const void *)(ip + 1) > context_end(context) ||
	    ip_total_size(ip) != context_size(context) - ETH_HLEN || ip_may_be_part(ip))
		return -1;
	view->eth = *eth;
#if OUTGATE_FAMILY == 4
	view->ecn = outer_ecn(ip->tos);
	view->sum = -1;
#else
	view->ecn = outer_ecn(ip->flow_lbl[0] >> 4);
	view->sum = inner_sum(ip, context_end(context));
#endif
	return 0;
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
	struct outer_v4 outer = {
		.ip = {
			.version = 4,
			.ihl = sizeof(struct iphdr) / 4,
			.tos = view->ecn,
			.tot_len = bpf_htons(size),
			.id = bpf_get_prandom_u32(),
			.ttl = TUNNEL_TTL,
			.protocol = IPPROTO_UDP,
			.saddr = route->source.word[0],
			.daddr = destination,
		},
		.tail.inner = view->eth,
	};

	outer_tail_write(&outer.tail, outer_port(context), size - sizeof(outer.ip));
	outer.ip.check = ~sum_fold(words_sum(&outer, sizeof(outer.ip) / 2));
	return outer_put(context, &outer, sizeof(outer), bpf_htons(ETH_P_IP),
			 BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
}

#if OUTGATE_FAMILY == 6
static __always_inline int outer_put_v6(struct context *context, const struct inner_view *view,
					const struct any_address *source,
					const struct ip_address *destination)
{
	__u32 size = context_size(context) + sizeof(struct udphdr) + sizeof(struct vxlan_header);
	struct outer_v6 outer = {
		.ip = {
			.version = 6,
			.flow_lbl[0] = view->ecn << 4,
			.payload_len = bpf_htons(size),
			.nexthdr = IPPROTO_UDP,
			.hop_limit = TUNNEL_TTL,
		},
		.tail.inner = view->eth,
	};
	__u64 sum;
	__u16 check;

	__builtin_memcpy(&outer.ip.saddr, source, sizeof(outer.ip.saddr));
	__builtin_memcpy(&outer.ip.daddr, destination, sizeof(outer.ip.daddr));
	outer_tail_write(&outer.tail, outer_port(context), size);
	sum = words_sum(&outer.ip.saddr, 2 * sizeof(outer.ip.saddr) / 2);
	sum += words_sum(&outer.tail, sizeof(outer.tail) / 2);
	sum += bpf_htons(size) + bpf_htons(IPPROTO_UDP) + view->sum;
	check = ~sum_fold(sum);
	outer.tail.udp.check = check ? check : 0xffff;
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
		const struct any_address *source = &config->tunnel_source;

		if (!(source->word[0] | source->word[1] | source->word[2] | source->word[3]))
			source = &route->source;
		return view->sum < 0 ? 0 : outer_put_v6(context, view, source, endpoint);
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
	    inner_read(context, &view))
		return 0;
	route = tunnel_route(context, config, endpoint);
	if (!route)
		return 0;
	size = context_size(context) - ETH_HLEN;
	if ((config->tunnel_mtu && size > config->tunnel_mtu) ||
	    size + sizeof(struct outer_v6) > route->mtu + (is_outer_v4(endpoint) ? 20 : 0))
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
