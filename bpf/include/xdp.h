/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What both directions of the XDP gateway need. */
#ifndef OUTGATE_XDP_H
#define OUTGATE_XDP_H

#include "classify.h"
#include "config.h"
#include "context_xdp.h"
#include "lifetime.h"
#include "outer_header.h"
#include "outer_match.h"
#include "rewrite.h"
#include "touch.h"
#include "verdict.h"
#include "work.h"

/* Must its next router refuse it? */
static __always_inline _Bool has_last_hop(struct context *context)
{
	const struct ip_header *ip = context_start(context) + ETH_HLEN;

	return (const void *)(ip + 1) > context_end(context) || ip_hops(ip) <= 1;
}

/* May XDP send an IP packet of @size bytes out of @ifindex? context_send() is told how. */
static __always_inline _Bool is_way(struct context *context, __u32 ifindex, __u32 size)
{
	const struct xdp_device *device = bpf_map_lookup_elem(&outgate_xdp_device, &ifindex);

	if (!device || size > device->mtu)
		return 0;
	context->is_veth = device->is_veth;
	return 1;
}

/* The kernel refused what cannot be undone: the packet must die. */
static __always_inline int xdp_failed(struct context *context, __u8 direction, __u32 policy)
{
	count(DROP_REWRITE, direction, policy, context_size(context));
	return XDP_DROP;
}

/* Return 0, or -1 when the packet has no room for an Ethernet header. */
static __always_inline int write_link(struct context *context, const __u8 *to, const __u8 *from,
				      __be16 protocol)
{
	struct ethhdr *eth = context_frame(context);

	if ((void *)(eth + 1) > context_end(context))
		return -1;
	__builtin_memcpy(eth->h_dest, to, ETH_ALEN);
	__builtin_memcpy(eth->h_source, from, ETH_ALEN);
	eth->h_proto = protocol;
	return 0;
}

#endif
