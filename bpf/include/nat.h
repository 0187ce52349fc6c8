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
#include "flow.h"
#include "port.h"
#include "verdict.h"

/* No port lies further: 14 bytes of Ethernet, at most 60 of IPv4, 4 to an echo id. */
#define OFFSET_MASK 127

/**
 * ip_write - write one translated address into an IPv4 header, and mend its checksum
 * The parameters are those of nat_write(). Return: 0, or -DROP_TTL_EXCEEDED, nothing written.
 */
static __always_inline int ip_write(struct iphdr *ip, enum nat_direction direction,
				    __be32 address, _Bool routed)
{
	__be32 from = direction == NAT_FORWARD ? ip->saddr : ip->daddr;

	if (routed) {
		__u16 *hops = (__u16 *)&ip->ttl, before = *hops;

		if (ip->ttl <= 1)
			return -DROP_TTL_EXCEEDED;
		ip->ttl -= 1;
		ip->check = csum_replace2(ip->check, before, *hops);
	}
	if (direction == NAT_FORWARD)
		ip->saddr = address;
	else
		ip->daddr = address;
	ip->check = csum_replace4(ip->check, from, address);
	return 0;
}

/**
 * nat_write - write one translation into a packet
 * @direction: NAT_FORWARD changes the source, NAT_REVERSE the destination
 * @routed: this node forwards the packet in the kernel's place: one hop less to live
 *
 * Packet pointers are invalid afterwards.
 * Return: 0, or -DROP_*; the packet may be half written then and must be dropped.
 */
static __always_inline int nat_write(struct context *context, const struct packet *packet,
				     enum nat_direction direction, __be32 address, __be16 port,
				     _Bool routed)
{
	void *start = context_start(context), *end = context_end(context);
	__u32 l4_offset = packet->l4_offset, port_offset = l4_offset;
	struct iphdr *ip = start + ETH_HLEN;
	__be16 from_port, *port_field;
	__be32 from;
	int error;

	if (packet->tuple.protocol == IPPROTO_ICMP)
		port_offset += __builtin_offsetof(struct icmp_echo, id);
	else if (direction == NAT_REVERSE)
		port_offset += sizeof(__be16);
	/*
	 * Verifier: "R3 offset is outside of the packet". It forgets the bound of a spilled
	 * offset, and the compiler drops a mask that it can prove useless.
	 */
	asm volatile("" : "+r"(port_offset));
	port_field = start + (port_offset & OFFSET_MASK);
	if ((void *)(ip + 1) > end || (void *)(port_field + 1) > end)
		return -DROP_INVALID;

	from = direction == NAT_FORWARD ? ip->saddr : ip->daddr;
	error = ip_write(ip, direction, address, routed);
	if (error)
		return error;
	from_port = *port_field;
	*port_field = port;
	if (context_replace_l4(context, packet->tuple.protocol, l4_offset, from, address,
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
				     __be32 destination)
{
	const struct runtime_config *config = runtime_config();
	struct bpf_fib_lookup fib = {
		.family = AF_INET,
		.ifindex = context->skb->ifindex,
		.ipv4_src = entry->address,
		.ipv4_dst = destination,
	};
	long result = bpf_fib_lookup(context->skb, &fib, sizeof(fib), 0);

	/* Without a known neighbour the kernel still tells device and next hop. */
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return -DROP_NO_ROUTE;
	entry->ifindex = fib.ifindex;
	/* A router known by its IPv6 address alone does not fit: 0 lets the kernel route. */
	entry->next_hop = fib.family == AF_INET ? fib.ipv4_dst : 0;
	entry->route_generation = config ? config->route_generation : 0;
	return 0;
}

/**
 * nat_open - create both entries of a new flow
 * @tuple:  as the pod wrote it
 * @found:  set to the forward entry on success
 *
 * Return: 0, or -DROP_*; then nothing was kept.
 */
static __always_inline int nat_open(struct context *context, const struct tuple4 *tuple,
				    __be32 egress_ip, __u32 policy, const struct origin *origin,
				    struct nat_entry *found)
{
	__u64 now = bpf_jiffies64();
	struct nat_entry forward = {
		.address = egress_ip, .policy = policy, .last_seen = now,
		.tunnel_endpoint = origin->tunnel_endpoint,
	};
	__u32 span = (__u32)settings.port_last - settings.port_first + 1;
	struct port_claim claim = {
		.context = context,
		.reply = reverse_key(tuple, egress_ip, 0),
		.entry = nat_reverse_entry(tuple, origin, policy, 0, now),
		.now = now,
		.seed = flow_hash(tuple) % span,
		.wanted = bpf_ntohs(tuple->source_port),
		.result = -DROP_SNAT_NO_PORT,
	};
	struct tuple4 key = forward_key(tuple);
	int error;

	if (settings.gateway_path == GATEWAY_DIRECT) {
		error = nat_route(context, &forward, tuple->destination);
		if (error)
			return error;
	}
	bpf_loop(1 + span, claim_port, &claim, 0);
	if (claim.result)
		return claim.result;
	forward.port = claim.reply.destination_port;
	if (bpf_map_update_elem(&outgate_snat_v4, &key, &forward, BPF_NOEXIST)) {
		/* Another CPU opened the same flow first (use its port), or there is no room. */
		const struct nat_entry *first = bpf_map_lookup_elem(&outgate_snat_v4, &key);

		if (!first || !leads_to(first, forward.address, forward.port))
			bpf_map_delete_elem(&outgate_snat_v4, &claim.reply);
		if (!first)
			return -DROP_NAT_TABLE_FULL;
		forward = *first;
	}
	*found = forward;
	return 0;
}

/* Forget both halves of a live flow, the reverse one only if no other flow has it now. */
static __always_inline void nat_close(const struct tuple4 *tuple, const struct nat_entry *forward)
{
	struct tuple4 reply = reverse_key(tuple, forward->address, forward->port);
	struct tuple4 key = forward_key(tuple);
	const struct nat_entry *reverse = bpf_map_lookup_elem(&outgate_snat_v4, &reply);

	if (reverse && leads_to(reverse, tuple->source, tuple->source_port))
		bpf_map_delete_elem(&outgate_snat_v4, &reply);
	bpf_map_delete_elem(&outgate_snat_v4, &key);
}

/*
 * Note a forward packet in both halves: at most once a second, or when the TCP state or
 * the pod's node changes. A reverse half that was evicted is put back as it was.
 * Return: 0, or -DROP_SNAT_NO_PORT when another flow took the port meanwhile.
 */
static __always_inline int nat_touch_forward(struct nat_entry *forward, const struct packet *packet,
					     const struct origin *origin, __u64 now)
{
	__u8 bits = tcp_bits(packet, 0);
	struct nat_entry *reverse, entry;
	struct tuple4 reply;

	if (!(bits & ~forward->tcp) && forward->tunnel_endpoint == origin->tunnel_endpoint &&
	    !is_stale(forward->last_seen, now))
		return 0;
	forward->tcp |= bits;
	forward->last_seen = now;
	forward->tunnel_endpoint = origin->tunnel_endpoint;

	reply = reverse_key(&packet->tuple, forward->address, forward->port);
	reverse = bpf_map_lookup_elem(&outgate_snat_v4, &reply);
	entry = nat_reverse_entry(&packet->tuple, origin, forward->policy, forward->tcp, now);
	if (!reverse)
		return bpf_map_update_elem(&outgate_snat_v4, &reply, &entry, BPF_NOEXIST) ?
			       -DROP_SNAT_NO_PORT : 0;
	if (!leads_to(reverse, entry.address, entry.port))
		return -DROP_SNAT_NO_PORT;
	entry.tcp |= reverse->tcp;
	*reverse = entry;
	return 0;
}

/* The same for a reply; @reply is its tuple as it came from the world. */
static __always_inline void nat_touch_reverse(struct nat_entry *reverse, const struct packet *packet,
					      __u64 now)
{
	__u8 bits = tcp_bits(packet, 1);
	struct nat_entry *forward;
	struct flow_entry *flow;
	struct tuple4 key;

	if (!(bits & ~reverse->tcp) && !is_stale(reverse->last_seen, now))
		return;
	reverse->tcp |= bits;
	reverse->last_seen = now;

	key = tuple_reverse(&packet->tuple);
	key.source = reverse->address;
	key.source_port = reverse->port;
	if (!reverse->tunnel_endpoint || settings.gateway_path == GATEWAY_STACK) {
		/* The flow entry is on this node too, and no other hook sees the answers. */
		flow = bpf_map_lookup_elem(&outgate_flow_v4, &key);
		if (flow)
			flow_touch(flow, bits, now);
	}
	key.direction = NAT_FORWARD;
	forward = bpf_map_lookup_elem(&outgate_snat_v4, &key);
	if (forward) {
		forward->tcp |= reverse->tcp;
		forward->last_seen = now;
		return;
	}
	/* The forward half was evicted. Its route is looked up when it is used (generation). */
	struct nat_entry entry = {
		.address = packet->tuple.destination, .port = packet->tuple.destination_port,
		.tcp = reverse->tcp, .tunnel_endpoint = reverse->tunnel_endpoint,
		.policy = reverse->policy, .last_seen = now,
	};

	bpf_map_update_elem(&outgate_snat_v4, &key, &entry, BPF_NOEXIST);
}

/* Routes changed, or a reply put the entry back. Return: 0, or -DROP_NO_ROUTE. */
static __always_inline int nat_renew_route(struct context *context, struct nat_entry *forward,
					   __be32 destination)
{
	const struct runtime_config *config = runtime_config();

	if (settings.gateway_path != GATEWAY_DIRECT || !config ||
	    (forward->route_generation == config->route_generation && forward->ifindex))
		return 0;
	return nat_route(context, forward, destination);
}

/**
 * nat_find - the translation of a packet that leaves through this node
 * @found: a copy of the forward entry on success; on failure its policy at least
 *
 * An entry that is over is closed first, so that the caller decides anew.
 * Return: 0, or 1 (no entry), or -DROP_SNAT_NO_PORT (the flow lost its port),
 *         -DROP_FORGED_POD (the flow is of a pod that the tunnel's source does not hold).
 */
static __always_inline int nat_find(struct context *context, const struct packet *packet,
				    const struct origin *origin, struct nat_entry *found)
{
	struct tuple4 key = forward_key(&packet->tuple);
	__u64 now = bpf_jiffies64();
	struct nat_entry *forward;
	int error;

	forward = bpf_map_lookup_elem(&outgate_snat_v4, &key);
	if (!forward)
		return 1;
	if (!is_live(forward->last_seen, packet->tuple.protocol, forward->tcp, now)) {
		/* Its reverse half, dead as well, is for whoever takes it. */
		bpf_map_delete_elem(&outgate_snat_v4, &key);
		return 1;
	}
	if (origin->tunnel_endpoint && origin->tunnel_endpoint != forward->tunnel_endpoint &&
	    !is_pod_of_node(packet->tuple.source, origin->tunnel_endpoint))
		return -DROP_FORGED_POD;
	if (is_decided_anew(packet, forward->tcp, forward->last_seen, now)) {
		nat_close(&packet->tuple, forward);
		return 1;
	}
	found->policy = forward->policy;
	error = nat_touch_forward(forward, packet, origin, now);
	if (error) {
		bpf_map_delete_elem(&outgate_snat_v4, &key);
		return error;
	}
	error = nat_renew_route(context, forward, packet->tuple.destination);
	if (error)
		return error;
	*found = *forward;
	return 0;
}

/* Send a translated packet into the world. Return: the redirect's verdict, or -DROP_*. */
static __always_inline int send_translated(struct context *context,
					   const struct nat_entry *forward)
{
	if (context_untag(context))
		return -DROP_REWRITE;
	context_mark(context, settings.mark_mask, settings.mark_translated);
	return context_redirect_next_hop(forward->ifindex, forward->next_hop);
}

/**
 * snat_send - translate a packet and send it into the world (gateway path "direct")
 * Return: the redirect's verdict, or -DROP_*.
 */
static __always_inline int snat_send(struct context *context, const struct packet *packet,
				     const struct nat_entry *forward)
{
	int error;

	context->egress_ip = forward->address;
	error = nat_write(context, packet, NAT_FORWARD, forward->address, forward->port, 1);
	return error ? error : send_translated(context, forward);
}

#endif
