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
#include "verdict.h"

/* One hop less to live. Return 0, or -DROP_TTL_EXCEEDED, nothing written. */
static __always_inline int ip_hop(struct context *context, struct ip_header *ip)
{
#if OUTGATE_FAMILY == 4
	__u16 *hops = (__u16 *)&ip->ttl, before = *hops;

	(void)context;
	if (ip->ttl <= 1)
		return -DROP_TTL_EXCEEDED;
	ip->ttl -= 1;
	ip->check = csum_replace2(ip->check, before, *hops);
#else
	__u16 *hops = (__u16 *)&ip->nexthdr, before = *hops;

	if (ip->hop_limit <= 1)
		return -DROP_TTL_EXCEEDED;
	ip->hop_limit -= 1;
	/* IPv4's header sums to the same; here nothing makes up for the change. */
	context_changed(context, before, *hops);
#endif
	return 0;
}

/**
 * ip_write - write one translated address into an IP header, and mend its checksum
 * @from: set to the address before
 * The other parameters are those of nat_write(). Return: 0, or -DROP_TTL_EXCEEDED, nothing
 * written.
 */
static __always_inline int ip_write(struct context *context, struct ip_header *ip,
				    enum nat_direction direction,
				    const struct ip_address *address, _Bool routed,
				    struct ip_address *from)
{
	struct ip_address *field = direction == NAT_FORWARD ? ip_source(ip) : ip_destination(ip);
	int error = routed ? ip_hop(context, ip) : 0;

	if (error)
		return error;
	*from = *field;
	*field = *address;
#if OUTGATE_FAMILY == 4
	ip->check = csum_replace_address(ip->check, from, address);
#endif
	return 0;
}

/* Where the port of a packet lies that a translation writes. */
static __always_inline __u32 port_offset(const struct packet *packet,
					 enum nat_direction direction)
{
	if (packet->tuple.protocol == OUR_ICMP)
		return packet->l4_offset + __builtin_offsetof(struct icmp_echo, id);
	return packet->l4_offset + (direction == NAT_REVERSE ? sizeof(__be16) : 0);
}

/**
 * nat_write - write one translation into a packet
 * @direction: NAT_FORWARD changes the source, NAT_REVERSE the destination
 * @routed: this node forwards the packet in the kernel's place: one hop less to live
 *
 * Of a later fragment only the address changes: it has no port, and no checksum.
 * Packet pointers are invalid afterwards.
 * Return: 0, or -DROP_*; the packet may be half written then and must be dropped.
 */
static __always_inline int nat_write(struct context *context, const struct packet *packet,
				     enum nat_direction direction,
				     const struct ip_address *address, __be16 port, _Bool routed)
{
	void *start = context_start(context), *end = context_end(context);
	struct ip_header *ip = start + ETH_HLEN;
	__be16 from_port, *port_field = packet_at(start, port_offset(packet, direction));
	struct ip_address from;
	int error;

	if ((void *)(ip + 1) > end)
		return -DROP_INVALID;
	if (packet->fragment == FRAGMENT_LATER) {
		error = ip_write(context, ip, direction, address, routed, &from);
		if (!error)
			context_changed_address(context, &from, address);
		return error;
	}
	if ((void *)(port_field + 1) > end)
		return -DROP_INVALID;
	error = ip_write(context, ip, direction, address, routed, &from);
	if (error)
		return error;
	from_port = *port_field;
	*port_field = port;
	if (packet->tuple.protocol == IPPROTO_SCTP || packet->zero_checksum) {
		/* SCTP's checksum covers neither addresses nor, as they stay, ports. */
		context_changed_address(context, &from, address);
		context_changed(context, from_port, port);
		return 0;
	}
	if (context_replace_l4(context, packet->tuple.protocol, packet->l4_offset, &from, address,
			       from_port, port))
		return -DROP_REWRITE;
	return 0;
}

/**
 * nat_route - find the way from this node to @destination, for the flow's lifetime
 * Routes are looked up with the egress IP as source, so that source routing applies.
 * Return: 0, or -DROP_NO_ROUTE.
 */
static __always_inline int nat_route(struct context *context, struct nat_entry *entry,
				     const struct ip_address *destination)
{
	const struct runtime_config *config = runtime_config();
	struct bpf_fib_lookup fib = {
		.family = OUR_AF,
		.ifindex = context->came_by ? context->came_by : context->skb->ifindex,
	};
	long result;

	/* Unions: IPv4 has the first word. */
	__builtin_memcpy(fib.ipv6_src, &entry->address, sizeof(entry->address));
	__builtin_memcpy(fib.ipv6_dst, destination, sizeof(*destination));
	result = bpf_fib_lookup(context->skb, &fib, sizeof(fib), 0);
	/* Without a known neighbour the kernel still tells device and next hop. */
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return -DROP_NO_ROUTE;
	entry->ifindex = fib.ifindex;
	entry->next_hop = (struct ip_address){};
	if (fib.family == OUR_AF)
		/* An IPv4 destination's router may have no IPv4 address: the kernel knows it. */
		__builtin_memcpy(&entry->next_hop, fib.ipv6_dst, sizeof(entry->next_hop));
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
	const struct nat_entry *first = &work->forward;

	if (bpf_map_update_elem(&FAMILY(outgate_snat), &work->key, &work->forward, BPF_NOEXIST)) {
		/* Another CPU opened the same flow first (use its port), or there is no room. */
		first = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->key);
		if (!first || !leads_to(first, &work->forward.address, work->forward.port))
			bpf_map_delete_elem(&FAMILY(outgate_snat), &work->reply);
		if (!first)
			return -DROP_NAT_TABLE_FULL;
	} else {
		nat_opened(work, tuple);
	}
	work->translation = *first;
	return 0;
}

/**
 * nat_open - create both entries of a new flow from the packet's origin
 * @tuple: as the pod wrote it
 *
 * To be called after nat_find(), which notes what the flow had before.
 * The forward entry is the packet's translation then. SCTP keeps its port, which its
 * checksum covers: without it there is none.
 * Return: 0, or -DROP_*; then nothing was kept.
 */
static __always_inline int nat_open(struct context *context, const struct tuple *tuple,
				    const struct ip_address *egress_ip, __u32 policy)
{
	__u32 span = (__u32)settings.port_last - settings.port_first + 1;
	__u32 steps = tuple->protocol == IPPROTO_SCTP ? 1 : 1 + span;
	struct work *work = context->work;
	struct nat_entry *forward = &work->forward;
	struct port_claim claim = {
		.context = context,
		.now = bpf_jiffies64(),
		.seed = flow_hash(tuple) % span,
		.wanted = bpf_ntohs(tuple->source_port),
		.result = -DROP_SNAT_NO_PORT,
	};
	int error;

	work->key = forward_key(tuple);
	work->reply = reverse_key(tuple, egress_ip, 0);
	nat_reverse_entry(&work->reverse, tuple, &work->origin, policy, 0, claim.now);
	__builtin_memset(forward, 0, sizeof(*forward));
	forward->address = *egress_ip;
	forward->policy = policy;
	forward->last_seen = claim.now;
	forward->tunnel_endpoint = work->origin.tunnel_endpoint;
	forward->policy_generation = policy_generation();
	if (settings.gateway_path == GATEWAY_DIRECT) {
		error = nat_route(context, forward, &tuple->destination);
		if (error)
			return error;
	}
	bpf_loop(steps, claim_port, &claim, 0);
	if (claim.result)
		return claim.result;
	forward->port = work->reply.destination_port;
	return nat_open_forward(work, tuple);
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
	reverse = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->reply);
	if (reverse && leads_to(reverse, &tuple->source, tuple->source_port))
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->reply);
	work->key = forward_key(tuple);
	bpf_map_delete_elem(&FAMILY(outgate_snat), &work->key);
}

/*
 * Note a forward packet in both halves: at most once a second, or when the TCP state or
 * the pod's node changes. A reverse half that was evicted is put back as it was.
 * Return: 0, or -DROP_SNAT_NO_PORT when another flow took the port meanwhile.
 */
static __always_inline int nat_touch_forward(struct work *work, struct nat_entry *forward,
					     const struct packet *packet, __u64 now)
{
	const struct origin *origin = &work->origin;
	__u8 bits = tcp_bits(packet, 0);
	struct nat_entry *reverse;

	if (!(bits & ~forward->tcp) &&
	    address_equal(&forward->tunnel_endpoint, &origin->tunnel_endpoint) &&
	    !is_stale(forward->last_seen, now))
		return 0;
	forward->tcp |= bits;
	forward->last_seen = now;
	forward->tunnel_endpoint = origin->tunnel_endpoint;

	work->reply = reverse_key(&packet->tuple, &forward->address, forward->port);
	nat_reverse_entry(&work->reverse, &packet->tuple, origin, forward->policy, forward->tcp,
			  now);
	reverse = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->reply);
	if (!reverse)
		return bpf_map_update_elem(&FAMILY(outgate_snat), &work->reply, &work->reverse,
					   BPF_NOEXIST) ? -DROP_SNAT_NO_PORT : 0;
	if (!leads_to(reverse, &work->reverse.address, work->reverse.port))
		return -DROP_SNAT_NO_PORT;
	work->reverse.tcp |= reverse->tcp;
	*reverse = work->reverse;
	return 0;
}

/* The same for a reply; @packet's tuple is as it came from the world. */
static __always_inline void nat_touch_reverse(struct work *work, struct nat_entry *reverse,
					      const struct packet *packet, __u64 now)
{
	struct nat_entry *forward, *lost = &work->forward;
	__u8 bits = tcp_bits(packet, 1);
	struct flow_entry *flow;

	if (!(bits & ~reverse->tcp) && !is_stale(reverse->last_seen, now))
		return;
	reverse->tcp |= bits;
	reverse->last_seen = now;

	work->key = tuple_reverse(&packet->tuple);
	work->key.source = reverse->address;
	work->key.source_port = reverse->port;
	if (address_is_none(&reverse->tunnel_endpoint) || settings.gateway_path == GATEWAY_STACK) {
		/* The flow entry is on this node too, and no other hook sees the answers. */
		flow = bpf_map_lookup_elem(&FAMILY(outgate_flow), &work->key);
		if (flow)
			flow_touch(flow, bits, now);
	}
	work->key.direction = NAT_FORWARD;
	forward = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->key);
	if (forward) {
		forward->tcp |= reverse->tcp;
		forward->last_seen = now;
		return;
	}
	/* The forward half was evicted. Its route is looked up when it is used (generation). */
	__builtin_memset(lost, 0, sizeof(*lost));
	lost->address = packet->tuple.destination;
	lost->port = packet->tuple.destination_port;
	lost->tcp = reverse->tcp;
	lost->tunnel_endpoint = reverse->tunnel_endpoint;
	lost->policy = reverse->policy;
	lost->last_seen = now;
	bpf_map_update_elem(&FAMILY(outgate_snat), &work->key, lost, BPF_NOEXIST);
}

/*
 * Routes or addresses changed, or a reply put the entry back: the flow goes on where there is
 * a way, and while this node has its egress IP. Return: 0, -DROP_NO_ROUTE, -DROP_NO_EGRESS_IP.
 */
static __always_inline int nat_renew_route(struct context *context, struct nat_entry *forward,
					   const struct ip_address *destination)
{
	const struct runtime_config *config = runtime_config();
	_Bool is_routed = settings.gateway_path != GATEWAY_DIRECT || forward->ifindex;

	if (!config || (forward->route_generation == config->route_generation && is_routed))
		return 0;
	if (!is_host_address(&forward->address))
		return -DROP_NO_EGRESS_IP;
	if (settings.gateway_path == GATEWAY_DIRECT)
		return nat_route(context, forward, destination);
	forward->route_generation = config->route_generation;
	return 0;
}

/**
 * nat_find - find the translation of a packet that leaves through this node
 * @policy: set where there is one, also where it does not serve
 *
 * The packet's origin must be known. An entry that is over is closed first, so that the
 * caller decides anew.
 * Return: 0, or 1 (no entry), or -DROP_SNAT_NO_PORT (the flow lost its port),
 *         -DROP_FORGED_POD (the flow is of a pod that the tunnel's source does not hold),
 *         -DROP_NO_ROUTE, -DROP_NO_EGRESS_IP (the node lost it).
 */
static __always_inline int nat_find(struct context *context, const struct packet *packet,
				    __u32 *policy)
{
	struct work *work = context->work;
	const struct origin *origin = &work->origin;
	__u64 now = bpf_jiffies64();
	struct nat_entry *forward;
	int error;

	work->had_translation = 0;
	work->key = forward_key(&packet->tuple);
	forward = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->key);
	if (!forward)
		return 1;
	if (!is_live(forward->last_seen, packet->tuple.protocol, forward->tcp, now)) {
		/* Its reverse half, dead as well, is for whoever takes it. */
		nat_note_former(work, forward);
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->key);
		return 1;
	}
	if (!address_is_none(&origin->tunnel_endpoint) &&
	    !address_equal(&origin->tunnel_endpoint, &forward->tunnel_endpoint) &&
	    !is_pod_of_node(&packet->tuple.source, &origin->tunnel_endpoint))
		return -DROP_FORGED_POD;
	if (is_outdated(forward->policy_generation) ||
	    is_decided_anew(packet, forward->tcp, forward->last_seen, now)) {
		nat_note_former(work, forward);
		nat_close(work, &packet->tuple, forward);
		return 1;
	}
	*policy = forward->policy;
	error = nat_touch_forward(work, forward, packet, now);
	if (error) {
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->key);
		return error;
	}
	error = nat_renew_route(context, forward, &packet->tuple.destination);
	if (error)
		return error;
	work->translation = *forward;
	return 0;
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
