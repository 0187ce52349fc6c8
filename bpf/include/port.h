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
#include "port_hints.h"
#include "verdict.h"

#define REPLY_TAKEN -17 /* EEXIST, as the map says it */

/**
 * own_reply - seal @entry and write it under @reply, unless a live entry of somebody else is there
 * @taken: what nat_lookup() of @reply found; in an LRU map even a refused insert may evict
 *         somebody, so callers look first
 *
 * Of several CPUs that find no entry, or the same dead one, exactly one gets it.
 * Return: 0, REPLY_TAKEN, or another negative errno.
 */
static __always_inline long own_reply(const struct tuple *reply, struct nat_entry *entry,
				      struct nat_entry *taken, __u64 now)
{
	__u64 seen;

	nat_seal(entry, reply);
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

/* What callbacks of a search are given: pointers, which cannot lie in the packet's work. */
struct port_search {
	struct context *context;
	struct ports_value *hints;
};

/**
 * claim_port - try one port (host order)
 *
 * A flow that lost its forward half meets its reverse half there, and keeps its port.
 *
 * Return: 1 when the search is over, 0 when somebody else has the port.
 */
static __always_inline long claim_port(struct context *context, __u32 port)
{
	struct work *work = context->work;
	struct port_claim *claim = &work->claim;
	struct tuple *reply = &work->reply;
	struct nat_entry *taken;
	long error;

	reply->destination_port = bpf_htons(port);
	taken = nat_lookup(reply);
	if (taken && !leads_to(taken, &work->reverse.address, work->reverse.port) &&
	    is_live(taken->last_seen, reply->protocol, taken->tcp, claim->now))
		return 0;
	if (is_host_socket(context, reply))
		return 0;
	error = own_reply(reply, &work->reverse, taken, claim->now);
	if (error == REPLY_TAKEN)
		return 0;
	claim->result = error ? -DROP_NAT_TABLE_FULL : 0;
	return 1;
}

/* One step of a walk through the range; a callback of bpf_loop(), which ends when it returns 1. */
static long walk_ports(__u64 step, struct port_search *search)
{
	__u32 place = (search->context->work->claim.start + step) % port_span();

	return claim_port(search->context, port_at_place(place));
}

/* The number of zeros below the lowest one; @bits has a one. */
static __always_inline __u32 zeros_below(__u64 bits)
{
	__u64 ones = (bits & -bits) - 1;

	/* Compiler: told what this is, it wants an instruction that BPF has not. */
	asm volatile("" : "+r"(ones));
	return __builtin_popcountll(ones);
}

/* One step of search_places(), a callback of bpf_loop(): on to the next bit, or word. */
static long search_place(__u64 step, struct port_search *search)
{
	struct port_claim *claim = &search->context->work->claim;
	__u32 place = claim->place;
	__u64 *word, bit;

	(void)step;
	if (place >= claim->end)
		return 1;
	word = port_word(search->hints, place);
	bit = (*(volatile __u64 *)word ^ claim->flip) >> place % 64;
	if (!bit) {
		claim->place = (place | 63) + 1;
		return 0;
	}
	place += zeros_below(bit);
	claim->place = place + 1;
	if (place >= claim->end)
		return 1;
	bit = 1ULL << place % 64;
	if (claim_port(search->context, port_at_place(place))) {
		claim->place = place;
		if (!claim->result)
			__sync_fetch_and_or(word, bit);
		return 1;
	}
	if (claim->flip)
		__sync_fetch_and_or(word, bit);
	return 0;
}

/* Try places from @place up to @end. Return 1 when the search is over. */
static __always_inline _Bool search_places(struct port_search *search, __u32 place, __u32 end)
{
	struct port_claim *claim = &search->context->work->claim;

	claim->place = place;
	claim->end = end;
	bpf_loop(PORT_WORDS + port_span() + 1, search_place, search, 0);
	return claim->result != -DROP_SNAT_NO_PORT;
}

/*
 * No bit is clear. Bits may be wrong, so every port is tried once in a round, which flows
 * share: each goes on where the one before found a port. A flow gets none when this second's
 * round is at its end.
 */
static __always_inline void check_places(struct port_search *search)
{
	struct port_claim *claim = &search->context->work->claim;
	struct ports_value *hints = search->hints;
	__u64 round = hints->round;

	if (is_stale(round, claim->now)) {
		/* A CPU that sees this half done may refuse one flow by the former round. */
		round = claim->now;
		hints->checked = 0;
		hints->round = round;
	}
	claim->flip = 0;
	search_places(search, hints->checked, port_span());
	if (hints->round == round)
		hints->checked = claim->place;
}

/* What hints are before anything is known; nobody writes here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct ports_value));
	__uint(max_entries, 1);
} no_hints SEC(".maps");

/* Make hints for the key in the packet's work. Return NULL when there is no room. */
static __always_inline struct ports_value *make_port_hints(struct work *work)
{
	struct ports_value *none;
	__u32 zero = 0;

	none = bpf_map_lookup_elem(&no_hints, &zero);
	if (!none)
		return 0;
	bpf_map_update_elem(&FAMILY(outgate_ports), &work->ports, none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&FAMILY(outgate_ports), &work->ports);
}

/* So many tries are cheaper than hints for every server of whose ports some are taken. */
#define TRIES_WITHOUT_HINTS 16

/* Search the whole range. Return: 0, or -DROP_*. */
static __always_inline int search_range(struct context *context)
{
	struct port_search search = { .context = context };
	struct work *work = context->work;
	struct port_claim *claim = &work->claim;
	__u32 span = port_span();

	search.hints = port_hints(work, &work->reply);
	if (!search.hints) {
		bpf_loop(span < TRIES_WITHOUT_HINTS ? span : TRIES_WITHOUT_HINTS, walk_ports,
			 &search, 0);
		if (claim->result != -DROP_SNAT_NO_PORT || span <= TRIES_WITHOUT_HINTS)
			return claim->result;
		search.hints = make_port_hints(work);
	}
	if (!search.hints) {
		bpf_loop(span, walk_ports, &search, 0);
		return claim->result;
	}
	claim->flip = ~0ULL;
	if (!search_places(&search, claim->start, span) &&
	    !search_places(&search, 0, claim->start))
		check_places(&search);
	return claim->result;
}

/**
 * search_port - find a port for a new flow
 * @tuple: as the pod wrote it
 *
 * The pod's own first (RFC 4787, 4.2.1, port preservation), then those of the range, each once,
 * from a place that the flow's hash chooses. SCTP keeps its port, which its checksum covers:
 * without it there is none.
 * The reply's tuple and the entry for it are in the packet's work; on success the tuple's
 * destination port is ours.
 *
 * Return: 0, or -DROP_*.
 */
static __always_inline int search_port(struct context *context, const struct tuple *tuple,
				       __u64 now)
{
	struct port_claim *claim = &context->work->claim;

	claim->now = now;
	claim->result = -DROP_SNAT_NO_PORT;
	if (is_in_range(tuple->source_port) &&
	    claim_port(context, bpf_ntohs(tuple->source_port)))
		return claim->result;
	if (tuple->protocol == IPPROTO_SCTP)
		return claim->result;
	claim->start = (place_of_port(flow_hash(tuple) % port_span()) + 1) % port_span();
	return search_range(context);
}

#endif
