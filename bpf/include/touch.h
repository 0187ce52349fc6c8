/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Noting a packet in both entries of its translated flow, which live and die together: each
 * refresh of one refreshes, or puts back, the other.
 */
#ifndef OUTGATE_TOUCH_H
#define OUTGATE_TOUCH_H

#include "config.h"
#include "lifetime.h"
#include "maps.h"
#include "pair.h"
#include "verdict.h"
#include "work.h"

/*
 * The MACs of a forward half are looked up anew after each refresh, so that a neighbour that
 * moves is followed within a second.
 */
static __always_inline void nat_forget_macs(struct nat_entry *forward)
{
	__builtin_memset(forward->from_mac, 0, ETH_ADDRESS_SIZE);
}

/* Does a packet that adds @bits to the TCP state change what @half says? */
static __always_inline _Bool is_refresh_due(const struct nat_entry *half, __u8 bits, __u64 now)
{
	return (bits & ~half->tcp) || is_stale(half->last_seen, now);
}

/*
 * Note a forward packet in both halves: at most once a second, or when the TCP state or
 * the pod's node changes. A reverse half that was evicted is put back as it was.
 * What @forward says is in work->translation, as nat_read() left it.
 * Return: 0, or -DROP_SNAT_NO_PORT when another flow took the port meanwhile, nothing written.
 */
static __always_inline int nat_touch_forward(struct work *work, struct nat_entry *forward,
					     const struct packet *packet, __u64 now)
{
	const struct nat_entry *known = &work->translation;
	const struct origin *origin = &work->origin;
	__u8 bits = tcp_bits(packet, 0);
	struct nat_entry *reverse;

	if (address_equal(&known->tunnel_endpoint, &origin->tunnel_endpoint) &&
	    !is_refresh_due(known, bits, now))
		return 0;
	work->reply = reverse_key(&packet->tuple, &known->address, known->port);
	nat_reverse_entry(&work->reverse, &packet->tuple, origin, known->policy,
			  known->tcp | bits, now);
	nat_seal(&work->reverse, &work->reply);
	reverse = nat_lookup(&work->reply);
	if (!reverse) {
		if (bpf_map_update_elem(&FAMILY(outgate_snat), &work->reply, &work->reverse,
					BPF_NOEXIST))
			return -DROP_SNAT_NO_PORT;
	} else if (leads_to(reverse, &work->reverse.address, work->reverse.port)) {
		work->reverse.tcp |= reverse->tcp;
		*reverse = work->reverse;
	} else {
		return -DROP_SNAT_NO_PORT;
	}
	forward->tcp |= bits;
	forward->last_seen = now;
	forward->tunnel_endpoint = origin->tunnel_endpoint;
	nat_forget_macs(forward);
	return 0;
}

/*
 * The same for a reply, with what @reverse says in work->translation; @packet's tuple is as it
 * came from the world.
 */
static __always_inline void nat_touch_reverse(struct work *work, struct nat_entry *reverse,
					      const struct packet *packet, __u64 now)
{
	struct nat_entry *forward, *known = &work->translation, *lost = &work->forward;
	__u8 bits = tcp_bits(packet, 1);
	struct flow_entry *flow;

	if (!is_refresh_due(known, bits, now))
		return;
	known->tcp |= bits;
	reverse->tcp |= bits;
	reverse->last_seen = now;

	work->key = tuple_reverse(&packet->tuple);
	work->key.source = known->address;
	work->key.source_port = known->port;
	if (address_is_none(&known->tunnel_endpoint) || settings.gateway_path == GATEWAY_STACK) {
		/* The flow entry is on this node too, and no other hook sees the answers. */
		flow = bpf_map_lookup_elem(&FAMILY(outgate_flow), &work->key);
		if (flow)
			flow_touch(flow, bits, now);
	}
	work->key.direction = NAT_FORWARD;
	forward = nat_lookup(&work->key);
	if (forward) {
		forward->tcp |= known->tcp;
		forward->last_seen = now;
		nat_forget_macs(forward);
		return;
	}
	/* The forward half was evicted. Its route is looked up when it is used (generation). */
	__builtin_memset(lost, 0, sizeof(*lost));
	lost->address = packet->tuple.destination;
	lost->port = packet->tuple.destination_port;
	lost->tcp = known->tcp;
	lost->tunnel_endpoint = known->tunnel_endpoint;
	lost->policy = known->policy;
	lost->last_seen = now;
	nat_seal(lost, &work->key);
	bpf_map_update_elem(&FAMILY(outgate_snat), &work->key, lost, BPF_NOEXIST);
}

#endif
