/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Fragments. Only the first part of a datagram has ports; they are remembered under the
 * datagram's id, so that the other parts go the same way.
 */
#ifndef OUTGATE_FRAGMENT_H
#define OUTGATE_FRAGMENT_H

#include "config.h"
#include "context.h"
#include "maps.h"
#include "parse.h"
#include "verdict.h"

/* Seconds that parts of a datagram wait for each other (Linux: 30 in IPv4, 60 in IPv6). */
#define LIFETIME_FRAGMENT (OUTGATE_FAMILY == 4 ? 30 : 60)

/* In IPv6 the id alone tells datagrams of two hosts apart, whatever follows (RFC 8200, 4.5). */
static __always_inline void fragment_key(struct fragment_key *key, const struct tuple *tuple,
					 __u32 id)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = tuple->source;
	key->destination = tuple->destination;
	key->id = id;
	key->protocol = OUTGATE_FAMILY == 4 ? tuple->protocol : 0;
}

/* Does an entry tell of a datagram that may still be on its way? */
static __always_inline _Bool is_current(const struct fragment_value *value, __u64 now)
{
	return (__s64)(now - value->last_seen) <=
	       (__s64)LIFETIME_FRAGMENT * settings.jiffies_per_second;
}

/* Take from @value what a later part lacks. */
static __always_inline _Bool fragment_complete(struct tuple *tuple,
					       const struct fragment_value *value, __u64 now)
{
	if (!value || value->state != FRAGMENT_KNOWN || !is_current(value, now))
		return 0;
	tuple->source_port = value->source_port;
	tuple->destination_port = value->destination_port;
	tuple->protocol = value->protocol;
	return 1;
}

/* Give a later part the ports of its datagram, where they are known: its class is FLOW then. */
static __always_inline void fragment_resolve(struct context *context, struct packet *packet)
{
	struct fragment_key *key = &context->work->datagram;

	if (packet->class != PACKET_FRAGMENT)
		return;
	fragment_key(key, &packet->tuple, packet->id);
	if (fragment_complete(&packet->tuple, bpf_map_lookup_elem(&FAMILY(outgate_frag), key),
			      bpf_jiffies64()))
		packet->class = PACKET_FLOW;
}

/* The same for an error that quotes a later part. */
static __always_inline void fragment_resolve_quote(struct context *context,
						   struct packet *packet)
{
	struct quote *quote = &context->work->quote;
	struct fragment_key *key = &context->work->datagram;

	if (packet->class != PACKET_FRAGMENT)
		return;
	fragment_key(key, &quote->tuple, quote->id);
	if (fragment_complete(&quote->tuple, bpf_map_lookup_elem(&FAMILY(outgate_frag), key),
			      bpf_jiffies64()))
		packet->class = PACKET_ICMP_ERROR;
}

/*
 * Remember under @id whose datagram it is. Return: do parts of it wait for that? Written in
 * place, since another CPU may be holding one.
 */
static __always_inline _Bool fragment_note(struct context *context, const struct tuple *tuple,
					   __u32 id, __u8 state)
{
	struct fragment_key *key = &context->work->datagram;
	struct fragment_value fresh = {
		.source_port = tuple->source_port, .destination_port = tuple->destination_port,
		.protocol = tuple->protocol, .state = state, .last_seen = bpf_jiffies64(),
	};
	struct fragment_value *value;

	fragment_key(key, tuple, id);
	value = bpf_map_lookup_elem(&FAMILY(outgate_frag), key);
	if (!value) {
		if (!bpf_map_update_elem(&FAMILY(outgate_frag), key, &fresh, BPF_NOEXIST))
			return 0;
		value = bpf_map_lookup_elem(&FAMILY(outgate_frag), key);
		if (!value)
			return 0;
	}
	value->source_port = fresh.source_port;
	value->destination_port = fresh.destination_port;
	value->protocol = fresh.protocol;
	value->last_seen = fresh.last_seen;
	*(volatile __u8 *)&value->state = state;
	if (!*(volatile __u8 *)&value->is_awaited)
		return 0;
	value->is_awaited = 0;
	return 1;
}

/* Remember what the first part of a datagram becomes, for errors that quote another part. */
static __always_inline void fragment_learn_translated(struct context *context,
						      const struct packet *packet,
						      enum nat_direction direction)
{
	const struct nat_entry *translation = &context->work->translation;
	struct tuple *tuple = &context->work->key;

	if (packet->fragment != FRAGMENT_FIRST)
		return;
	*tuple = packet->tuple;
	if (direction == NAT_FORWARD) {
		tuple->source = translation->address;
		tuple->source_port = translation->port;
	} else {
		tuple->destination = translation->address;
		tuple->destination_port = translation->port;
	}
	fragment_note(context, tuple, packet->id, FRAGMENT_KNOWN);
}

/*
 * Remember the ports of a datagram's first part where the parts come in order: the tunnel
 * keeps it, since their outer headers are alike.
 */
static __always_inline void fragment_learn_ordered(struct context *context,
						   const struct packet *packet)
{
	if (packet->fragment == FRAGMENT_FIRST)
		fragment_note(context, &packet->tuple, packet->id, FRAGMENT_KNOWN);
}

#endif
