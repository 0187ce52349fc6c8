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

#define DEVICE_SLOTS 64

/* What outgate_xdp_device says of one interface. */
struct device_slot {
	__u64 asked; /* jiffies */
	__u32 ifindex;
	__u32 mtu; /* 0: XDP may not send there */
	__u16 generation; /* of routes */
	_Bool is_veth;
};

/* Not pinned: asked anew by each program, each second, and when interfaces change. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct device_slot));
	__uint(max_entries, DEVICE_SLOTS);
} device_slots SEC(".maps");

/* Not inlined: seldom. */
static __noinline void ask_device(struct device_slot *slot, __u32 ifindex, __u16 generation,
				  __u64 now)
{
	const struct xdp_device *device = bpf_map_lookup_elem(&outgate_xdp_device, &ifindex);

	slot->asked = now;
	slot->ifindex = ifindex;
	slot->generation = generation;
	slot->mtu = device ? device->mtu : 0;
	slot->is_veth = device && device->is_veth;
}

/* May XDP send an IP packet of @size bytes out of @ifindex? context_send() is told how. */
static __always_inline _Bool is_way(struct context *context, const struct runtime_config *config,
				    __u32 ifindex, __u32 size, __u64 now)
{
	__u32 number = ifindex % DEVICE_SLOTS;
	struct device_slot *slot = bpf_map_lookup_elem(&device_slots, &number);

	if (!slot)
		return 0;
	if (slot->ifindex != ifindex || slot->generation != config->route_generation ||
	    is_stale(slot->asked, now))
		ask_device(slot, ifindex, config->route_generation, now);
	context->is_veth = slot->is_veth;
	return size <= slot->mtu;
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
