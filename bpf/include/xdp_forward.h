/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * XDP gateway, towards the world: out of the tunnel, translated by the flow's entry, to the
 * next hop. As overlay.h and nat.h do it for a packet whose flow needs no decision.
 */
#ifndef OUTGATE_XDP_FORWARD_H
#define OUTGATE_XDP_FORWARD_H

#include "route.h"
#include "xdp.h"

/* Whom packets are sent to: a neighbour, behind an interface. */
struct next_hop {
	__u32 ifindex;
	struct ip_address address;
};

/*
 * When a packet last went to a next hop by the kernel. Not pinned: what is not known is taken
 * for long ago.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, sizeof(struct next_hop));
	__uint(value_size, sizeof(__u64)); /* jiffies */
	__uint(max_entries, 4096);
} next_hops SEC(".maps");

/*
 * The kernel asks after a neighbour only while it sends to it: once a second it sends, and
 * this packet is the one.
 */
static __always_inline _Bool is_kernels_turn(const struct nat_entry *forward,
					     const struct ip_address *destination, __u64 now)
{
	struct next_hop key = { .ifindex = forward->ifindex, .address = forward->next_hop };
	__u64 *last;

	if (address_is_none(&key.address))
		key.address = *destination;
	last = bpf_map_lookup_elem(&next_hops, &key);
	if (last && !is_stale(*last, now))
		return 0;
	if (last)
		*last = now;
	else
		bpf_map_update_elem(&next_hops, &key, &now, BPF_ANY);
	return 1;
}

/* What a packet is to become. */
struct forwarding {
	struct ip_address address;
	__be16 port;
	__u32 policy;
	__u32 ifindex;
	__u32 seal;
	__u8 to_mac[ETH_ALEN];
	__u8 from_mac[ETH_ALEN];
};

/*
 * Copy the MACs of a flow. Another CPU may forget them meanwhile: no frame leaves with half of
 * one. Return: are they known, and whole?
 */
static __always_inline _Bool copy_macs(struct forwarding *to, const struct nat_entry *forward)
{
	const volatile __u16 *part = (const void *)forward->from_mac;
	__u16 first = part[0], second = part[1], third = part[2];
	__u16 from[ETH_ALEN / 2] = { first, second, third };

	__builtin_memcpy(to->from_mac, from, ETH_ALEN);
	__builtin_memcpy(to->to_mac, forward->to_mac, ETH_ALEN);
	barrier();
	return (first | second | third) && part[0] == first && part[1] == second &&
	       part[2] == third && forward->seal == to->seal;
}

/*
 * Look the MACs of a flow up, where the kernel has a neighbour and its route is still the
 * flow's. from_mac is written last: another CPU that sees it sees the other too.
 * Not inlined, to have a stack of its own. Return: are they known, and is it not the kernel's
 * turn?
 */
static __noinline _Bool find_macs(struct context *context, struct nat_entry *forward,
				  const struct ip_address *destination, __u64 now)
{
	const struct runtime_config *config = runtime_config();
	struct ip_address next_hop;
	struct bpf_fib_lookup fib;

	if (!config)
		return 0;
	fib = route_query(forward, destination, config->tunnel_ifindex);
	if (bpf_fib_lookup(context->xdp, &fib, sizeof(fib), 0))
		return 0;
	next_hop = route_next_hop(&fib);
	if (fib.ifindex != forward->ifindex || !address_equal(&next_hop, &forward->next_hop))
		return 0;
	__builtin_memcpy(forward->to_mac, fib.dmac, ETH_ALEN);
	barrier();
	__builtin_memcpy(forward->from_mac, fib.smac, ETH_ALEN);
	return !is_kernels_turn(forward, destination, now);
}

/*
 * The entry of a packet from @node whose flow goes on as it was decided; or NULL, also where
 * its seal is broken (nat_read()): tc drops and counts.
 */
static __always_inline struct nat_entry *
forward_entry(const struct packet *packet, const struct runtime_config *config,
	      const struct ip_address *node, __u64 now, struct forwarding *to)
{
	struct tuple key = forward_key(&packet->tuple);
	struct nat_entry *forward = bpf_map_lookup_elem(&FAMILY(outgate_snat), &key);

	if (!forward)
		return 0;
	to->address = forward->address;
	to->port = forward->port;
	to->policy = forward->policy;
	to->ifindex = forward->ifindex;
	to->seal = forward->seal;
	barrier();
	if (!to->ifindex || to->seal != seal_of(&key, &to->address, to->port) ||
	    forward->route_generation != config->route_generation ||
	    !address_equal(&forward->tunnel_endpoint, node) ||
	    !is_live(forward->last_seen, key.protocol, forward->tcp, now) ||
	    is_outdated(forward->policy_generation) ||
	    is_decided_anew(packet, forward->tcp, forward->last_seen, now))
		return 0;
	return forward;
}

/* As nat_touch_forward(), of a flow from @node. Not inlined: seldom. */
static __noinline int refresh_forward(struct nat_entry *forward, const struct packet *packet,
				      const struct ip_address *node, __u64 now)
{
	struct work *work = work_begin();

	if (!work)
		return -1;
	work->key = forward_key(&packet->tuple);
	if (nat_read(&work->translation, forward, &work->key))
		return -1;
	work->origin = (struct origin){ .tunnel_endpoint = *node };
	return nat_touch_forward(work, forward, packet, now);
}

/**
 * xdp_forward - translate and send what @node tunnelled here
 * @outer_size: bytes of outer header
 * Return: what the kernel is told.
 */
static __always_inline int xdp_forward(struct context *context,
				       const struct runtime_config *config,
				       const struct ip_address *node, __u32 outer_size)
{
	__u64 now = bpf_jiffies64();
	struct nat_entry *forward;
	struct packet packet;
	struct forwarding to;

	context->offset = outer_size;
	if (!parse_plain(context_start(context), context_end(context), &packet) ||
	    has_last_hop(context) || is_pod_address(&packet.tuple.destination))
		return XDP_PASS;
	forward = forward_entry(&packet, config, node, now, &to);
	if (!forward || !context_is_whole(context) ||
	    !is_way(context, config, to.ifindex, context_size(context) - ETH_HLEN, now))
		return XDP_PASS;
	if (is_refresh_due(forward, tcp_bits(&packet, 0), now) &&
	    refresh_forward(forward, &packet, node, now))
		return XDP_PASS;
	if (!copy_macs(&to, forward) &&
	    (!find_macs(context, forward, &packet.tuple.destination, now) ||
	     !copy_macs(&to, forward)))
		return XDP_PASS;
	if (bpf_xdp_adjust_head(context->xdp, outer_size))
		return XDP_PASS;
	context->offset = 0;
	if (nat_write(context, &packet, NAT_FORWARD, &to.address, to.port, 1) ||
	    write_link(context, to.to_mac, to.from_mac, OUR_ETH_P))
		return xdp_failed(context, DIRECTION_TO_WORLD, to.policy);
	count(FORWARDED, DIRECTION_TO_WORLD, to.policy, context_size(context));
	return context_send(context, to.ifindex);
}

#endif
