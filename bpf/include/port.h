/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which port a flow leaves with. A port belongs to whoever has the reverse entry of its
 * reply's tuple; this header is the only one that decides who that is.
 */
#ifndef OUTGATE_PORT_H
#define OUTGATE_PORT_H

#include "config.h"
#include "context.h"
#include "flow.h"
#include "pair.h"
#include "verdict.h"

#define REPLY_TAKEN -17 /* EEXIST, as the map says it */

/**
 * own_reply - write @entry under @reply, unless a live entry of somebody else is there
 * @taken: what a lookup of @reply found; in an LRU map even a refused insert may evict
 *         somebody, so callers look first
 *
 * Of several CPUs that find no entry, or the same dead one, exactly one gets it.
 * Return: 0, REPLY_TAKEN, or another negative errno.
 */
static __always_inline long own_reply(const struct tuple *reply, const struct nat_entry *entry,
				      struct nat_entry *taken, __u64 now)
{
	__u64 seen;

	if (!taken)
		return bpf_map_update_elem(&FAMILY(outgate_snat), reply, entry, BPF_NOEXIST);
	seen = *(volatile __u64 *)&taken->last_seen;
	if (is_live(seen, reply->protocol, taken->tcp, now)) {
		if (!leads_to(taken, &entry->address, entry->port))
			return REPLY_TAKEN;
	} else if (__sync_val_compare_and_swap(&taken->last_seen, seen, now) != seen) {
		return REPLY_TAKEN;
	}
	return bpf_map_update_elem(&FAMILY(outgate_snat), reply, entry, BPF_ANY);
}

/* Note a packet of a host socket in its entry. */
static __always_inline void touch_host_port(struct nat_entry *host, __u8 bits, __u64 now)
{
	if (bits & ~host->tcp)
		host->tcp |= bits;
	if (is_stale(host->last_seen, now))
		host->last_seen = now;
}

/* May the walk give this port (network order) to a pod? */
static __always_inline _Bool is_in_range(__be16 port)
{
	__u16 host = bpf_ntohs(port);

	return host >= settings.port_first && host <= settings.port_last;
}

/* Does a socket of this node, bound or connected, own the destination of @reply? */
static __always_inline _Bool is_host_socket(struct context *context, const struct tuple *reply)
{
	/* As struct bpf_sock_tuple has it, for either family. */
	struct {
		struct ip_address source, destination;
		__be16 source_port, destination_port;
	} tuple = {
		reply->source, reply->destination, reply->source_port, reply->destination_port,
	};
	struct bpf_sock *socket = 0;

	if (reply->protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(context->skb, (void *)&tuple, sizeof(tuple),
					   BPF_F_CURRENT_NETNS, 0);
	else if (reply->protocol == IPPROTO_UDP)
		socket = bpf_sk_lookup_udp(context->skb, (void *)&tuple, sizeof(tuple),
					   BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

struct port_claim {
	struct context *context;
	__u64 now;
	__u32 seed; /* less than the range is wide, so that the walk's sums do not wrap */
	__u16 wanted; /* host order: the pod's own port */
	int result;
};

/*
 * A prime, larger than any range is wide, so that steps of it visit every port. Pods use
 * ports one after the other: steps of one would walk through whole runs of taken ports.
 */
#define PORT_STRIDE 2654435761U

/**
 * claim_port - try the port of one step of the walk; a callback of bpf_loop()
 *
 * The reply's tuple and the entry for it are in the packet's work; on success the tuple's
 * destination port is ours.
 *
 * Step 0 is the pod's own port (RFC 4787, 4.2.1, port preservation), the others walk the
 * whole range once from a place that the flow's hash chooses. A flow that lost its forward
 * half meets its reverse half there, and keeps its port.
 *
 * Return: 1 to end the walk, 0 to go on.
 */
static long claim_port(__u64 step, struct port_claim *claim)
{
	__u32 span = (__u32)settings.port_last - settings.port_first + 1;
	struct work *work = claim->context->work;
	struct tuple *reply = &work->reply;
	__u32 port = claim->wanted;
	struct nat_entry *taken;
	long error;

	if (step)
		port = settings.port_first + (claim->seed + step * PORT_STRIDE) % span;
	else if (port < settings.port_first || port > settings.port_last)
		return 0;
	reply->destination_port = bpf_htons(port);

	taken = bpf_map_lookup_elem(&FAMILY(outgate_snat), reply);
	if (taken && !leads_to(taken, &work->reverse.address, work->reverse.port) &&
	    is_live(taken->last_seen, reply->protocol, taken->tcp, claim->now))
		return 0;
	if (is_host_socket(claim->context, reply))
		return 0;
	error = own_reply(reply, &work->reverse, taken, claim->now);
	if (error == REPLY_TAKEN)
		return 0;
	claim->result = error ? -DROP_NAT_TABLE_FULL : 0;
	return 1;
}

#endif
