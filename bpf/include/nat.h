/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Open a translation, rewrite, rewrite back. Two entries a flow (forward and reverse) live
 * and die together: each refresh of one refreshes, or puts back, the other.
 */
#ifndef OUTGATE_NAT_H
#define OUTGATE_NAT_H

#include "classify.h"
#include "config.h"
#include "context.h"
#include "csum.h"
#include "encap.h"
#include "event.h"
#include "flow.h"
#include "fragment.h"
#include "garbage.h"
#include "port.h"
#include "rewrite.h"
#include "route.h"
#include "touch.h"
#include "verdict.h"

/**
 * nat_route - find the way from this node to @destination, for the flow's lifetime
 * Routes are looked up with the egress IP as source, so that source routing applies.
 * Return: 0, or -DROP_NO_ROUTE.
 */
static __always_inline int nat_route(struct context *context, struct nat_entry *entry,
				     const struct ip_address *destination)
{
	const struct runtime_config *config = runtime_config();
	struct bpf_fib_lookup fib;
	long result;

	fib = route_query(entry, destination,
			  context->came_by ? context->came_by : context->skb->ifindex);
	result = bpf_fib_lookup(context->skb, &fib, sizeof(fib), 0);
	/*
	 * Without a known neighbour the kernel still tells device and next hop; with one also
	 * where this packet is too long for the device.
	 */
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH &&
	    result != BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return -DROP_NO_ROUTE;
	entry->ifindex = fib.ifindex;
	entry->next_hop = route_next_hop(&fib);
	entry->route_generation = config ? config->route_generation : 0;
	return 0;
}

/*
 * Tell of a new pair, unless it is what the flow had before, and queue it for collection,
 * unless the flow is queued from before.
 */
static __always_inline void nat_opened(struct work *work, const struct tuple *tuple)
{
	const struct nat_entry *forward = &work->forward;

	if (!work->had_translation)
		garbage_nat(work, tuple, &forward->address, forward->port);
	else if (leads_to(forward, &work->former_address, work->former_port))
		return;
	else
		event_nat(work, EVENT_NAT_RELEASED, tuple, &work->former_address,
			  work->former_port, forward->policy);
	event_nat(work, EVENT_NAT_MADE, tuple, &forward->address, forward->port,
		  forward->policy);
}

/*
 * Keep the forward half of what was claimed, and use it. Return: 0, or -DROP_*; then nothing
 * was kept.
 */
static __always_inline int nat_open_forward(struct work *work, const struct tuple *tuple)
{
	const struct nat_entry *first;
	int error;

	nat_seal(&work->forward, &work->key);
	work->translation = work->forward;
	if (!bpf_map_update_elem(&FAMILY(outgate_snat), &work->key, &work->forward, BPF_NOEXIST)) {
		nat_opened(work, tuple);
		return 0;
	}
	/* Another CPU opened the same flow first (use its port), or there is no room. */
	first = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->key);
	error = first ? nat_read(&work->translation, first, &work->key) : -DROP_NAT_TABLE_FULL;
	if (error || !leads_to(&work->translation, &work->forward.address, work->forward.port)) {
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->reply);
		port_released(work, &work->reply);
	}
	return error;
}

/**
 * nat_open - create both entries of a new flow from the packet's origin
 * @tuple: as the pod wrote it
 *
 * To be called after nat_find(), which notes what the flow had before.
 * The forward entry is the packet's translation then.
 * Return: 0, or -DROP_*; then nothing was kept.
 */
static __always_inline int nat_open(struct context *context, const struct tuple *tuple,
				    const struct ip_address *egress_ip, __u32 policy)
{
	struct work *work = context->work;
	struct nat_entry *forward = &work->forward;
	__u64 now = bpf_jiffies64();
	int error;

	work->key = forward_key(tuple);
	work->reply = reverse_key(tuple, egress_ip, 0);
	nat_reverse_entry(&work->reverse, tuple, &work->origin, policy, 0, now);
	__builtin_memset(forward, 0, sizeof(*forward));
	forward->address = *egress_ip;
	forward->policy = policy;
	forward->last_seen = now;
	forward->tunnel_endpoint = work->origin.tunnel_endpoint;
	forward->policy_generation = policy_generation();
	if (settings.gateway_path == GATEWAY_DIRECT) {
		error = nat_route(context, forward, &tuple->destination);
		if (error)
			return error;
	}
	error = search_port(context, tuple, now);
	if (error)
		return error;
	forward->port = work->reply.destination_port;
	return nat_open_forward(work, tuple);
}

/**
 * nat_open_flow - create both entries of a new flow of a pod of this node, or from its tunnel
 * @tuple: as the pod wrote it; what was decided for it is in the packet's work
 * Return: as nat_open(), or -DROP_WRONG_ENTRY.
 */
static __always_inline int nat_open_flow(struct context *context, const struct tuple *tuple)
{
	const struct flow_entry *flow = &context->work->flow;

	if (!flow_is_confirmed(flow, tuple))
		return -DROP_WRONG_ENTRY;
	return nat_open(context, tuple, &flow->egress_ip, flow->policy);
}

/* Note what a flow had before it is decided anew. */
static __always_inline void nat_note_former(struct work *work, const struct nat_entry *forward)
{
	work->had_translation = 1;
	work->former_address = forward->address;
	work->former_port = forward->port;
}

/* Forget both halves of a live flow, the reverse one only if no other flow has it now. */
static __always_inline void nat_close(struct work *work, const struct tuple *tuple,
				      const struct nat_entry *forward)
{
	const struct nat_entry *reverse;

	work->reply = reverse_key(tuple, &forward->address, forward->port);
	reverse = nat_lookup(&work->reply);
	if (reverse && leads_to(reverse, &tuple->source, tuple->source_port)) {
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->reply);
		port_released(work, &work->reply);
	}
	work->key = forward_key(tuple);
	bpf_map_delete_elem(&FAMILY(outgate_snat), &work->key);
}

/*
 * Routes or addresses changed, or a reply put the entry back: the flow goes on where there is
 * a way, and while this node has its egress IP.
 * Return: 0, 1 (@forward, a copy, has another way now), -DROP_NO_ROUTE, -DROP_NO_EGRESS_IP.
 */
static __always_inline int nat_renew_route(struct context *context, struct nat_entry *forward,
					   const struct ip_address *destination)
{
	const struct runtime_config *config = runtime_config();
	_Bool is_routed = settings.gateway_path != GATEWAY_DIRECT || forward->ifindex;
	int error;

	if (!config || (forward->route_generation == config->route_generation && is_routed))
		return 0;
	if (!is_host_address(&forward->address))
		return -DROP_NO_EGRESS_IP;
	if (settings.gateway_path == GATEWAY_DIRECT) {
		error = nat_route(context, forward, destination);
		return error ? error : 1;
	}
	forward->route_generation = config->route_generation;
	return 1;
}

/* Keep the way of @translation in its entry. */
static __always_inline void nat_keep_route(struct nat_entry *forward,
					   const struct nat_entry *translation)
{
	forward->ifindex = translation->ifindex;
	forward->next_hop = translation->next_hop;
	nat_forget_macs(forward);
	forward->route_generation = translation->route_generation;
}

/**
 * nat_find - find the translation of a packet that leaves through this node
 * @policy: set where there is one, also where it does not serve
 *
 * The packet's origin must be known. An entry that is over is closed first, so that the
 * caller decides anew.
 * Return: 0, or 1 (no entry), or -DROP_SNAT_NO_PORT (the flow lost its port),
 *         -DROP_FORGED_POD (the flow is of a pod that the tunnel's source does not hold),
 *         -DROP_NO_ROUTE, -DROP_NO_EGRESS_IP (the node lost it), -DROP_WRONG_ENTRY.
 */
static __always_inline int nat_find(struct context *context, const struct packet *packet,
				    __u32 *policy)
{
	struct work *work = context->work;
	const struct origin *origin = &work->origin;
	__u64 now = bpf_jiffies64();
	struct nat_entry *forward, *known = &work->translation;
	int error;

	work->had_translation = 0;
	work->key = forward_key(&packet->tuple);
	forward = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->key);
	if (!forward)
		return 1;
	error = nat_read(known, forward, &work->key);
	if (error) {
		nat_remove_broken(forward, &work->key);
		return error;
	}
	if (!is_live(known->last_seen, packet->tuple.protocol, known->tcp, now)) {
		/* Its reverse half, dead as well, is for whoever takes it. */
		nat_note_former(work, known);
		work->reply = reverse_key(&packet->tuple, &known->address, known->port);
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->key);
		port_released(work, &work->reply);
		return 1;
	}
	if (!address_is_none(&origin->tunnel_endpoint) &&
	    !address_equal(&origin->tunnel_endpoint, &known->tunnel_endpoint) &&
	    !is_pod_of_node(&packet->tuple.source, &origin->tunnel_endpoint))
		return -DROP_FORGED_POD;
	if (is_outdated(known->policy_generation) ||
	    is_decided_anew(packet, known->tcp, known->last_seen, now)) {
		nat_note_former(work, known);
		nat_close(work, &packet->tuple, known);
		return 1;
	}
	*policy = known->policy;
	error = nat_touch_forward(work, forward, packet, now);
	if (error) {
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->key);
		return error;
	}
	error = nat_renew_route(context, known, &packet->tuple.destination);
	if (error > 0 && is_sealed(forward, &work->key))
		nat_keep_route(forward, known);
	return error < 0 ? error : 0;
}

/*
 * Send a packet into the world that its translation was written into. Return: the redirect's
 * verdict, or -DROP_*.
 */
static __always_inline int send_translated(struct context *context)
{
	const struct nat_entry *translation = &context->work->translation;

	if (context_untag(context))
		return -DROP_REWRITE;
	context_mark(context, settings.mark_mask, settings.mark_translated);
	return context_redirect_next_hop(translation->ifindex, &translation->next_hop);
}

/**
 * snat_send - translate a packet and send it into the world (gateway path "direct")
 * Return: the redirect's verdict, or -DROP_*.
 */
static __always_inline int snat_send(struct context *context, const struct packet *packet)
{
	struct work *work = context->work;
	int error;

	work->egress_ip = work->translation.address;
	error = nat_write(context, packet, NAT_FORWARD, &work->egress_ip, work->translation.port,
			  1);
	if (error)
		return error;
	fragment_learn_translated(context, packet, NAT_FORWARD);
	return send_translated(context);
}

#endif
