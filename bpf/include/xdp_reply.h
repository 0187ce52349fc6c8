/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * XDP gateway, back to the pod: translated by the flow's entry, and into the tunnel. As
 * from_netdev and outer.h do it for a packet that needs no answer.
 */
#ifndef OUTGATE_XDP_REPLY_H
#define OUTGATE_XDP_REPLY_H

#include "xdp.h"

/* The way to another node, neighbour included. */
struct link_route {
	__u32 ifindex;
	__u16 generation; /* of routes */
	__u16 mtu; /* of the outer packet */
	struct any_address source;
	__u8 to_mac[ETH_ADDRESS_SIZE];
	__u8 from_mac[ETH_ADDRESS_SIZE];
	__u64 asked; /* jiffies */
};

/* Not pinned: looked up anew by each program. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, sizeof(struct ip_address));
	__uint(value_size, sizeof(struct link_route));
	__uint(max_entries, 4096);
} link_routes SEC(".maps");

/*
 * Look the way up for the packets to come. In place, since in an LRU map what is replaced may
 * be another node's while another CPU reads it.
 * Not inlined, to have a stack of its own.
 */
static __noinline void ask_route(struct context *context, const struct runtime_config *config,
				 const struct ip_address *endpoint, __u64 now)
{
	struct bpf_fib_lookup fib = outer_route_query(endpoint);
	struct link_route *known, fresh = {};

	if (bpf_fib_lookup(context->xdp, &fib, sizeof(fib), FIB_LOOKUP_SRC))
		return;
	fresh.ifindex = fib.ifindex;
	fresh.generation = config->route_generation;
	fresh.mtu = fib.mtu_result;
	fresh.asked = now;
	__builtin_memcpy(&fresh.source, fib.ipv6_src, sizeof(fresh.source));
	__builtin_memcpy(fresh.to_mac, fib.dmac, ETH_ALEN);
	__builtin_memcpy(fresh.from_mac, fib.smac, ETH_ALEN);
	known = bpf_map_lookup_elem(&link_routes, endpoint);
	if (known)
		*known = fresh;
	else
		bpf_map_update_elem(&link_routes, endpoint, &fresh, BPF_ANY);
}

/*
 * The way to node @endpoint. Once a second it is NULL, and looked up anew: a neighbour that
 * moves is followed, and the packet goes by the kernel, which asks after a neighbour only while
 * it sends to it.
 */
static __always_inline const struct link_route *
link_route(struct context *context, const struct runtime_config *config,
	   const struct ip_address *endpoint, __u64 now)
{
	const struct link_route *known = bpf_map_lookup_elem(&link_routes, endpoint);

	if (known && known->generation == config->route_generation && !is_stale(known->asked, now))
		return known;
	ask_route(context, config, endpoint, now);
	return 0;
}

/* What a packet is to become. */
struct replying {
	struct ip_address address;
	struct ip_address tunnel_endpoint;
	__be16 port;
	__u32 policy;
};

/*
 * The entry of a packet that goes back to a pod of another node; or NULL, as forward_entry().
 * What the packet becomes is copied, since another CPU may move the pod.
 */
static __always_inline struct nat_entry *reply_entry(const struct packet *packet, __u64 now,
						     struct replying *to)
{
	struct nat_entry *reverse;
	struct tuple key = packet->tuple;
	__u32 seal;

	key.direction = NAT_REVERSE;
	reverse = bpf_map_lookup_elem(&FAMILY(outgate_snat), &key);
	if (!reverse)
		return 0;
	to->address = reverse->address;
	to->tunnel_endpoint = reverse->tunnel_endpoint;
	to->port = reverse->port;
	to->policy = reverse->policy;
	seal = reverse->seal;
	barrier();
	if (seal != seal_of(&key, &to->address, to->port) ||
	    (reverse->flags & NAT_HOST_SOCKET) || address_is_none(&to->tunnel_endpoint) ||
	    !is_live(reverse->last_seen, key.protocol, reverse->tcp, now))
		return 0;
	return reverse;
}

/* As nat_touch_reverse(). Not inlined: seldom. */
static __noinline void refresh_reverse(struct nat_entry *reverse, const struct packet *packet,
				       __u64 now)
{
	struct work *work = work_begin();

	if (!work)
		return;
	work->key = packet->tuple;
	work->key.direction = NAT_REVERSE;
	if (!nat_read(&work->translation, reverse, &work->key))
		nat_touch_reverse(work, reverse, packet, now);
}

/* Write the outer header and the link's. Return: 0, or -1. */
static __always_inline int reply_wrap(struct context *context, const struct inner_view *view,
				      const struct link_route *route,
				      const struct any_address *source,
				      const struct ip_address *endpoint, __be16 port)
{
	void *start = context_frame(context) + ETH_HLEN;
	__u32 size = distance(start, context_end(context));

#if OUTGATE_FAMILY == 6
	if (!is_outer_v4(endpoint)) {
		struct outer_v6 *outer = start;

		if ((void *)(outer + 1) > context_end(context))
			return -1;
		outer_fill_v6(outer, view, source, endpoint, port, size);
		return write_link(context, route->to_mac, route->from_mac, bpf_htons(ETH_P_IPV6));
	}
#endif
	struct outer_v4 *outer = start;

	if ((void *)(outer + 1) > context_end(context))
		return -1;
	outer_fill_v4(outer, view, source->word[0], endpoint->word[ADDRESS_WORDS - 1], port, size);
	return write_link(context, route->to_mac, route->from_mac, bpf_htons(ETH_P_IP));
}

/* Translate, wrap and send. Not a byte was written before this. */
static __always_inline int reply_send(struct context *context, const struct packet *packet,
				      struct nat_entry *reverse, const struct replying *to,
				      const struct link_route *route,
				      const struct any_address *source, __u32 outer_size, __u64 now)
{
	__be16 port = outer_port(&packet->tuple);
	struct inner_view view;

	if (is_refresh_due(reverse, tcp_bits(packet, 1), now))
		refresh_reverse(reverse, packet, now);
	if (bpf_xdp_adjust_head(context->xdp, -(int)outer_size))
		/* No room before the frame. */
		return XDP_PASS;
	context->offset = outer_size;
	if (nat_write(context, packet, NAT_REVERSE, &to->address, to->port, 1) ||
	    inner_read(context, &view) ||
	    reply_wrap(context, &view, route, source, &to->tunnel_endpoint, port))
		return xdp_failed(context, DIRECTION_TO_POD, to->policy);
	context->offset = 0;
	count(FORWARDED, DIRECTION_TO_POD, to->policy, context_size(context));
	return context_send(context, route->ifindex);
}

/**
 * xdp_reply - take what came from the world back to a pod
 * Return: what the kernel is told.
 */
static __always_inline int xdp_reply(struct context *context, const struct runtime_config *config)
{
	__u32 size = context_size(context) - ETH_HLEN;
	const struct link_route *route;
	__u64 now = bpf_jiffies64();
	struct nat_entry *reverse;
	struct inner_view view;
	struct packet packet;
	struct replying to;

	if (!parse_plain(context_start(context), context_end(context), &packet) ||
	    packet.tcp_syn || packet.tcp_accept || !config->tunnel_ifindex)
		return XDP_PASS;
	reverse = reply_entry(&packet, now, &to);
	if (!reverse || has_last_hop(context) || inner_read(context, &view) ||
	    !context_is_whole(context))
		return XDP_PASS;
	route = link_route(context, config, &to.tunnel_endpoint, now);
	if (!route || !fits_tunnel(size, config, &to.tunnel_endpoint, route->mtu))
		return XDP_PASS;
#if OUTGATE_FAMILY == 6
	if (!is_outer_v4(&to.tunnel_endpoint)) {
		if (view.sum < 0 || !is_way(context, config, route->ifindex,
					    size + sizeof(struct outer_v6), now))
			return XDP_PASS;
		return reply_send(context, &packet, reverse, &to, route,
				  outer_source(config, &route->source), sizeof(struct outer_v6),
				  now);
	}
#endif
	if (!is_way(context, config, route->ifindex, size + sizeof(struct outer_v4), now))
		return XDP_PASS;
	return reply_send(context, &packet, reverse, &to, route, &route->source,
			  sizeof(struct outer_v4), now);
}

#endif
