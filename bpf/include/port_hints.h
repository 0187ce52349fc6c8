/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which ports towards one server a search need not try: bits beside outgate_snat, made only
 * where a search took long. They decide nothing. A bit may be clear though the port is taken
 * (nobody tried it), or set though it is free (its owner went without a word: evicted, idle
 * for too long, or a socket that was closed): port.h tries what it wants to rely on.
 */
#ifndef OUTGATE_PORT_HINTS_H
#define OUTGATE_PORT_HINTS_H

#include "config.h"
#include "maps.h"
#include "types.h"
#include "work.h"

/*
 * A prime, larger than any range is wide, so that steps of it visit every port. Pods use
 * ports one after the other: steps of one would walk through whole runs of taken ports.
 * Its inverse is in the settings (src/outgate/kernel/settings.py).
 */
#define PORT_STRIDE 2654435761U

/* So many ports may pods have. */
static __always_inline __u32 port_span(void)
{
	return (__u32)settings.port_last - settings.port_first + 1;
}

/* May the search give this port (network order) to a pod? */
static __always_inline _Bool is_in_range(__be16 port)
{
	__u16 host = bpf_ntohs(port);

	return host >= settings.port_first && host <= settings.port_last;
}

/*
 * The port (host order) at a place, less than the range is wide. From place to place it is
 * one stride: bits of ports that a search visits one after the other lie side by side.
 */
static __always_inline __u32 port_at_place(__u32 place)
{
	return settings.port_first + (__u64)place * PORT_STRIDE % port_span();
}

/* The place of a port (host order) that lies @offset ports behind the first of the range. */
static __always_inline __u32 place_of_port(__u32 offset)
{
	return (__u64)offset * settings.port_inverse % port_span();
}

/* The word that has a place's bit. */
static __always_inline __u64 *port_word(struct ports_value *hints, __u32 place)
{
	return &hints->taken[place / 64 & (PORT_WORDS - 1)];
}

/* The hints about the egress IP, server and protocol of @reply, or NULL: there are none. */
static __always_inline struct ports_value *port_hints(struct work *work,
						      const struct tuple *reply)
{
	struct ports_key *key = &work->ports;

	__builtin_memset(key, 0, sizeof(*key));
	key->server = reply->source;
	key->egress_ip = reply->destination;
	key->server_port = reply->source_port;
	key->first = settings.port_first;
	key->last = settings.port_last;
	key->protocol = reply->protocol;
	return bpf_map_lookup_elem(&FAMILY(outgate_ports), key);
}

/* To be called after the entry under @reply went: its port is worth a try. */
static __always_inline void port_released(struct work *work, const struct tuple *reply)
{
	struct ports_value *hints;
	__u32 place;

	if (!is_in_range(reply->destination_port))
		return;
	hints = port_hints(work, reply);
	if (!hints)
		return;
	place = place_of_port(bpf_ntohs(reply->destination_port) - settings.port_first);
	__sync_fetch_and_and(port_word(hints, place), ~(1ULL << place % 64));
}

#endif
