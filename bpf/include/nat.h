/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Claim a port, rewrite, rewrite back. Two entries a flow (forward and reverse) live and
 * die together: each refresh of one refreshes, or puts back, the other.
 */
#ifndef OUTGATE_NAT_H
#define OUTGATE_NAT_H

#include "config.h"
#include "context.h"
#include "csum.h"
#include "encap.h"
#include "flow.h"
#include "verdict.h"

/* No port lies further: 14 bytes of Ethernet, at most 60 of IPv4, 4 to an echo id. */
#define OFFSET_MASK 127

static __always_inline struct tuple4 forward_key(const struct tuple4 *tuple)
{
	struct tuple4 key = *tuple;

	key.direction = NAT_FORWARD;
	return key;
}

/* The tuple of a reply to @tuple once it is translated to @egress_ip and @port. */
static __always_inline struct tuple4 reverse_key(const struct tuple4 *tuple, __be32 egress_ip,
						 __be16 port)
{
	struct tuple4 key = tuple_reverse(tuple);

	key.destination = egress_ip;
	key.destination_port = port;
	key.direction = NAT_REVERSE;
	return key;
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

	if (routed) {
		__u16 *hops = (__u16 *)&ip->ttl, before = *hops;

		if (ip->ttl <= 1)
			return -DROP_TTL_EXCEEDED;
		ip->ttl -= 1;
		ip->check = csum_replace2(ip->check, before, *hops);
	}
	from_port = *port_field;
	*port_field = port;
	from = direction == NAT_FORWARD ? ip->saddr : ip->daddr;
	if (direction == NAT_FORWARD)
		ip->saddr = address;
	else
		ip->daddr = address;
	ip->check = csum_replace4(ip->check, from, address);
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
		.family = 2 /* AF_INET */,
		.ifindex = context->skb->ifindex,
		.ipv4_src = entry->address,
		.ipv4_dst = destination,
	};
	long result = bpf_fib_lookup(context->skb, &fib, sizeof(fib), 0);

	/* Without a known neighbour the kernel still tells device and next hop. */
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return -DROP_NO_ROUTE;
	entry->ifindex = fib.ifindex;
	entry->next_hop = fib.ipv4_dst;
	entry->route_generation = config ? config->route_generation : 0;
	return 0;
}

/* Two halves of 32 bits, well mixed (the finalizer of MurmurHash3). */
static __always_inline __u32 flow_hash(const struct tuple4 *tuple)
{
	__u32 hash = tuple->source ^ tuple->destination * 0x9e3779b1;

	hash ^= ((__u32)tuple->source_port << 16 | tuple->destination_port) * 0x85ebca6b;
	hash ^= tuple->protocol;
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

/* Does a socket of this node, bound or connected, own the destination of @reply? */
static __always_inline _Bool is_host_socket(struct context *context, const struct tuple4 *reply)
{
	struct bpf_sock_tuple tuple = {
		.ipv4 = {
			.saddr = reply->source, .daddr = reply->destination,
			.sport = reply->source_port, .dport = reply->destination_port,
		},
	};
	struct bpf_sock *socket = 0;

	if (reply->protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(context->skb, &tuple, sizeof(tuple.ipv4),
					   BPF_F_CURRENT_NETNS, 0);
	else if (reply->protocol == IPPROTO_UDP)
		socket = bpf_sk_lookup_udp(context->skb, &tuple, sizeof(tuple.ipv4),
					   BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

struct port_claim {
	struct context *context;
	struct tuple4 reply; /* on success its destination port is ours */
	struct nat_entry entry;
	__u64 now;
	__u32 seed;
	__u16 wanted; /* host order: the pod's own port */
	int result;
};

/**
 * claim_port - try the port of one step of the walk; a callback of bpf_loop()
 *
 * Step 0 is the pod's own port (RFC 4787, 4.2.1, port preservation), the others walk the
 * whole range once from a place that the flow's hash chooses. Two CPUs may race for one
 * port; BPF_NOEXIST lets exactly one have it.
 *
 * Return: 1 to end the walk, 0 to go on.
 */
static long claim_port(__u64 step, struct port_claim *claim)
{
	__u32 span = (__u32)settings.port_last - settings.port_first + 1;
	__u32 port = claim->wanted;
	struct nat_entry *taken;
	long error;

	if (step)
		port = settings.port_first + (claim->seed + (__u32)step) % span;
	else if (port < settings.port_first || port > settings.port_last)
		return 0;
	claim->reply.destination_port = bpf_htons(port);

	/* Look before inserting: in an LRU map even a refused insert may evict somebody. */
	taken = bpf_map_lookup_elem(&outgate_snat_v4, &claim->reply);
	if (taken) {
		if (is_live(taken->last_seen, claim->reply.protocol, taken->tcp, claim->now))
			return 0;
		bpf_map_delete_elem(&outgate_snat_v4, &claim->reply);
	}
	if (is_host_socket(claim->context, &claim->reply))
		return 0;
	error = bpf_map_update_elem(&outgate_snat_v4, &claim->reply, &claim->entry, BPF_NOEXIST);
	if (error == -17 /* EEXIST: another CPU was first */)
		return 0;
	claim->result = error ? -DROP_NAT_TABLE_FULL : 0;
	return 1;
}

/* The reverse half of a flow from @tuple's source. */
static __always_inline struct nat_entry nat_reverse_entry(const struct tuple4 *tuple,
							  const struct origin *origin,
							  __u32 policy, __u8 tcp, __u64 now)
{
	struct nat_entry entry = {
		.address = tuple->source, .port = tuple->source_port, .tcp = tcp,
		.tunnel_endpoint = origin->tunnel_endpoint, .policy = policy,
		.ifindex = origin->ifindex, .last_seen = now,
	};

	__builtin_memcpy(entry.pod_mac, origin->pod_mac, ETH_ADDRESS_SIZE);
	__builtin_memcpy(entry.host_mac, origin->host_mac, ETH_ADDRESS_SIZE);
	return entry;
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
	struct port_claim claim = {
		.context = context,
		.reply = reverse_key(tuple, egress_ip, 0),
		.entry = nat_reverse_entry(tuple, origin, policy, 0, now),
		.now = now,
		.seed = flow_hash(tuple),
		.wanted = bpf_ntohs(tuple->source_port),
		.result = -DROP_SNAT_NO_PORT,
	};
	struct tuple4 key = forward_key(tuple);
	__u32 span = (__u32)settings.port_last - settings.port_first + 1;
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
		const struct nat_entry *first;

		bpf_map_delete_elem(&outgate_snat_v4, &claim.reply);
		first = bpf_map_lookup_elem(&outgate_snat_v4, &key);
		if (!first)
			return -DROP_NAT_TABLE_FULL;
		forward = *first;
	}
	*found = forward;
	return 0;
}

/* Forget both halves of a flow that is over. */
static __always_inline void nat_close(const struct tuple4 *tuple, const struct nat_entry *forward)
{
	struct tuple4 reply = reverse_key(tuple, forward->address, forward->port);
	struct tuple4 key = forward_key(tuple);

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
	if (reverse->address != entry.address || reverse->port != entry.port ||
	    (reverse->flags & NAT_HOST_SOCKET))
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
	struct tuple4 key;

	if (!(bits & ~reverse->tcp) && !is_stale(reverse->last_seen, now))
		return;
	reverse->tcp |= bits;
	reverse->last_seen = now;

	key = tuple_reverse(&packet->tuple);
	key.source = reverse->address;
	key.source_port = reverse->port;
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

/**
 * nat_find - the translation of a packet that leaves through this node
 * @found: a copy of the forward entry on success
 *
 * An entry that is over is closed first, so that the caller decides anew.
 * Return: 0, or -DROP_SNAT_NO_PORT (the flow lost its port) or 1 (no entry).
 */
static __always_inline int nat_find(struct context *context, const struct packet *packet,
				    const struct origin *origin, struct nat_entry *found)
{
	const struct runtime_config *config = runtime_config();
	struct tuple4 key = forward_key(&packet->tuple);
	__u64 now = bpf_jiffies64();
	struct nat_entry *forward;
	int error;

	forward = bpf_map_lookup_elem(&outgate_snat_v4, &key);
	if (!forward)
		return 1;
	if (!is_live(forward->last_seen, packet->tuple.protocol, forward->tcp, now) ||
	    is_reopened(packet, forward->tcp)) {
		nat_close(&packet->tuple, forward);
		return 1;
	}
	error = nat_touch_forward(forward, packet, origin, now);
	if (error) {
		bpf_map_delete_elem(&outgate_snat_v4, &key);
		return error;
	}
	if (settings.gateway_path == GATEWAY_DIRECT && config &&
	    (forward->route_generation != config->route_generation || !forward->ifindex)) {
		error = nat_route(context, forward, packet->tuple.destination);
		if (error)
			return error;
	}
	*found = *forward;
	return 0;
}

/**
 * snat_send - translate a packet and send it into the world (gateway path "direct")
 * Return: the redirect's verdict, or -DROP_*.
 */
static __always_inline int snat_send(struct context *context, const struct packet *packet,
				     const struct nat_entry *forward)
{
	int error = nat_write(context, packet, NAT_FORWARD, forward->address, forward->port, 1);

	if (error)
		return error;
	context_mark(context, settings.mark_mask, settings.mark_translated);
	return context_redirect_next_hop(forward->ifindex, forward->next_hop);
}

#endif
