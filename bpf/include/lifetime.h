/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * How long entries of flows live, and what keeps them alive: the time of the last packet, the
 * state of a TCP connection, the generation of the policies.
 */
#ifndef OUTGATE_LIFETIME_H
#define OUTGATE_LIFETIME_H

#include <linux/in.h>

#include "config.h"
#include "parse.h"
#include "types.h"

/* Seconds without a packet after which a flow is over. */
#define LIFETIME_TCP_OPENING 60 /* nothing came back yet */
#define LIFETIME_TCP 7440 /* RFC 5382, REQ-5: not before 2 hours 4 minutes */
#define LIFETIME_TCP_CLOSING 10 /* reset, or both sides are done */
#define LIFETIME_UDP 300 /* RFC 4787, REQ-5: 5 minutes recommended; SCTP likewise */
#define LIFETIME_ICMP 60 /* RFC 5508, REQ-1 */

#define TCP_FIN_BOTH (TCP_FIN_FORWARD | TCP_FIN_REVERSE)

/* Is the connection over, from both its sides' view? */
static __always_inline _Bool is_closed(__u8 tcp)
{
	return (tcp & TCP_RESET) || (tcp & TCP_FIN_BOTH) == TCP_FIN_BOTH;
}

static __always_inline __u64 lifetime(__u8 protocol, __u8 tcp)
{
	__u64 seconds = LIFETIME_ICMP;

	if (protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP)
		seconds = LIFETIME_UDP;
	else if (protocol == IPPROTO_TCP && is_closed(tcp))
		seconds = LIFETIME_TCP_CLOSING;
	else if (protocol == IPPROTO_TCP && !(tcp & TCP_REPLIED))
		seconds = LIFETIME_TCP_OPENING;
	else if (protocol == IPPROTO_TCP)
		seconds = LIFETIME_TCP;
	return seconds * settings.jiffies_per_second;
}

/*
 * Signed: another CPU may have touched the entry after this one read its clock, and an
 * entry of the future is not a dead one.
 */
static __always_inline _Bool is_live(__u64 last_seen, __u8 protocol, __u8 tcp, __u64 now)
{
	return (__s64)(now - last_seen) <= (__s64)lifetime(protocol, tcp);
}

/* At most once a second an entry's time is written: its cache line stays shared. */
static __always_inline _Bool is_stale(__u64 last_seen, __u64 now)
{
	return (__s64)(now - last_seen) >= (__s64)settings.jiffies_per_second;
}

/* The bits that one packet adds to an entry's TCP state. */
static __always_inline __u8 tcp_bits(const struct packet *packet, _Bool reverse)
{
	__u8 bits = reverse ? TCP_REPLIED : 0;

	if (packet->tcp_fin)
		bits |= reverse ? TCP_FIN_REVERSE : TCP_FIN_FORWARD;
	if (packet->tcp_rst)
		bits |= TCP_RESET;
	return bits;
}

/*
 * A SYN after anything but SYNs begins a new connection: the old one is closed, or its pod
 * was killed, or the answer to the first SYN was lost and deciding anew changes nothing.
 */
static __always_inline _Bool is_reopened(const struct packet *packet, __u8 tcp)
{
	return packet->tcp_syn && tcp;
}

/*
 * Must a flow that a pod began be decided by today's policy? With each SYN, and once a
 * second while nothing has come back: nobody relies on the former decision yet, and its
 * gateway may have lost its row.
 */
static __always_inline _Bool is_decided_anew(const struct packet *packet, __u8 tcp,
					     __u64 last_seen, __u64 now)
{
	return packet->tcp_syn || (!(tcp & TCP_REPLIED) && is_stale(last_seen, now));
}

/* The generation of the policy rows, for an entry that they decide. */
static __always_inline __u16 policy_generation(void)
{
	const struct runtime_config *config = runtime_config();

	return config ? config->policy_generation : 0;
}

/* Did policies change since an entry of @generation was made, and does that matter? */
static __always_inline _Bool is_outdated(__u16 generation)
{
	return settings.existing_flows == FLOWS_REDECIDE && generation != policy_generation();
}

/* Write only when the time is stale, or when the TCP state moves. */
static __always_inline void flow_touch(struct flow_entry *flow, __u8 bits, __u64 now)
{
	if (bits & ~flow->tcp)
		flow->tcp |= bits;
	if (is_stale(flow->last_seen, now))
		flow->last_seen = now;
}

#endif
