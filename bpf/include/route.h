/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The way of a translated flow into the world: what to ask the kernel, and what it says. */
#ifndef OUTGATE_ROUTE_H
#define OUTGATE_ROUTE_H

#include <linux/bpf.h>

#include "address.h"
#include "ip.h"
#include "types.h"

/* With the egress IP as source, so that source routing applies; unions: IPv4 has one word. */
static __always_inline struct bpf_fib_lookup
route_query(const struct nat_entry *forward, const struct ip_address *destination, __u32 came_by)
{
	struct bpf_fib_lookup query = { .family = OUR_AF, .ifindex = came_by };

	__builtin_memcpy(query.ipv6_src, &forward->address, sizeof(forward->address));
	__builtin_memcpy(query.ipv6_dst, destination, sizeof(*destination));
	return query;
}

/* None where an IPv4 destination's router has no IPv4 address: the kernel knows it. */
static __always_inline struct ip_address route_next_hop(const struct bpf_fib_lookup *answer)
{
	struct ip_address next_hop = {};

	if (answer->family == OUR_AF)
		__builtin_memcpy(&next_hop, answer->ipv6_dst, sizeof(next_hop));
	return next_hop;
}

#endif
