/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Flow entries: one a connection, keyed by the tuple as the pod writes it. The decision is
 * made at the first packet; later packets cost one lookup.
 */
#ifndef OUTGATE_FLOW_H
#define OUTGATE_FLOW_H

#include "address.h"
#include "config.h"
#include "encap.h"
#include "event.h"
#include "garbage.h"
#include "lifetime.h"
#include "maps.h"
#include "parse.h"
#include "work.h"

/**
 * flow_lookup - the live entry of a packet that a pod sends
 * Return: NULL when the flow must be decided: unknown, over, or opened anew.
 */
static __always_inline struct flow_entry *flow_lookup(const struct packet *packet, __u64 now)
{
	struct flow_entry *flow = bpf_map_lookup_elem(&FAMILY(outgate_flow), &packet->tuple);

	if (!flow || !is_live(flow->last_seen, packet->tuple.protocol, flow->tcp, now))
		return 0;
	if (flow->decision == FLOW_INBOUND)
		/* The pod begins where the world began before: a new flow, not a reply. */
		return packet->tcp_syn || packet->echo_request ? 0 : flow;
	if (is_outdated(flow->generation))
		return 0;
	return is_decided_anew(packet, flow->tcp, flow->last_seen, now) ? 0 : flow;
}

/**
 * flow_lookup_reply - the live entry of a packet that goes to a pod
 * @view: the tuple as the pod would write it
 */
static __always_inline struct flow_entry *flow_lookup_reply(const struct tuple *view, __u64 now)
{
	struct flow_entry *flow = bpf_map_lookup_elem(&FAMILY(outgate_flow), view);

	return flow && is_live(flow->last_seen, view->protocol, flow->tcp, now) ? flow : 0;
}

/*
 * Does the table still say of the flow what @copy says? Its memory may have been given to
 * another flow while it was copied, as nat_read() has it. What changes with packets is left out.
 */
static __always_inline _Bool flow_is_confirmed(const struct flow_entry *copy,
					       const struct tuple *view)
{
	const struct flow_entry *flow = bpf_map_lookup_elem(&FAMILY(outgate_flow), view);

	if (!flow)
		return 0;
	return flow->decision == copy->decision && flow->policy == copy->policy &&
	       flow->ifindex == copy->ifindex &&
	       address_equal(&flow->tunnel_endpoint, &copy->tunnel_endpoint) &&
	       address_equal(&flow->egress_ip, &copy->egress_ip) &&
	       mac_equal(flow->pod_mac, copy->pod_mac) &&
	       mac_equal(flow->host_mac, copy->host_mac);
}

/**
 * flow_open - keep the flow in the packet's work as what was decided for @tuple
 * Return: 0, or -DROP_FLOW_TABLE_FULL.
 */
static __always_inline int flow_open(struct work *work, const struct tuple *tuple)
{
	_Bool is_known = bpf_map_lookup_elem(&FAMILY(outgate_flow), tuple);

	if (bpf_map_update_elem(&FAMILY(outgate_flow), tuple, &work->flow, BPF_ANY))
		return -DROP_FLOW_TABLE_FULL;
	if (!is_known) {
		garbage_flow(work, tuple);
		event_flow(work, EVENT_FLOW_OPENED, tuple, &work->flow);
	}
	return 0;
}

/* The origin of a packet that came out of a pod's veth. Return 0, or -1 for a cut frame. */
static __always_inline int origin_of_pod(struct context *context)
{
	struct origin *origin = &context->work->origin;
	const struct ethhdr *eth = context_start(context);

	if ((void *)(eth + 1) > context_end(context))
		return -1;
	origin->tunnel_endpoint = (struct ip_address){};
	origin->ifindex = context->skb->ifindex;
	__builtin_memcpy(origin->pod_mac, eth->h_source, ETH_ADDRESS_SIZE);
	__builtin_memcpy(origin->host_mac, eth->h_dest, ETH_ADDRESS_SIZE);
	return 0;
}

#endif
