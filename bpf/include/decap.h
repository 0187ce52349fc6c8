/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Out of the tunnel without the kernel's VXLAN device: from_netdev takes the outer header
 * off what nodes that we believe sent to this one. Whatever is in any way unusual is left
 * to the device, which knows what to do, and to from_overlay behind it.
 */
#ifndef OUTGATE_DECAP_H
#define OUTGATE_DECAP_H

#include "classify.h"
#include "config.h"
#include "context.h"
#include "encap.h"
#include "outer_match.h"

/* BPF_F_ADJ_ROOM_DECAP_L3_IPV6 of Linux 6.3; older kernels refuse it. */
#define ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)

/* A header was taken off that cannot be put back: the packet must die. */
#define DECAP_FAILED (-1)

/*
 * Take @size bytes of outer header off, and its Ethernet header: the inner one stays. Not of a
 * part of a datagram: it would overtake one that the device has yet to put together. Nor of what
 * is to be answered: the kernel remakes no packet that it notes as tunnelled, as it still does
 * behind a link that hands on such notes (a veth).
 */
static __always_inline int decap_strip(struct context *context, __u32 size, __u64 flags)
{
	struct ethhdr *inner = context_start(context) + size;
	const struct ip_header *ip = (const void *)(inner + 1);
	__u8 destination[ETH_ALEN], source[ETH_ALEN];
	struct ethhdr *eth;

	if ((const void *)(ip + 1) > context_end(context) || ip_may_be_part(ip) ||
	    ip_hops(ip) <= 1)
		return 0;
	__builtin_memcpy(destination, inner->h_dest, ETH_ALEN);
	__builtin_memcpy(source, inner->h_source, ETH_ALEN);
	if (bpf_skb_adjust_room(context->skb, -(__s32)size, BPF_ADJ_ROOM_MAC, flags))
		return 0;
	if (context_write_macs(context, destination, source))
		return DECAP_FAILED;
	eth = context_start(context);
	if ((void *)(eth + 1) > context_end(context))
		return DECAP_FAILED;
	eth->h_proto = OUR_ETH_P;
	return 1;
}

/*
 * Super-packets reach the device's receiver a little later than they reach us. What follows
 * one of the same flow waits behind it there, until so many jiffies are over.
 */
#define BURST_JIFFIES 2
#define BURSTS 256

/* When the device last got a super-packet, by UDP source port. Each CPU has its own flows. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
	__uint(max_entries, BURSTS);
} bursts SEC(".maps");

/* Is it a super-packet, or one right behind it? */
static __always_inline _Bool is_of_burst(struct context *context, __be16 source_port)
{
	__u32 number = bpf_ntohs(source_port) % BURSTS;
	__u64 now = bpf_jiffies64(), *last = bpf_map_lookup_elem(&bursts, &number);

	if (!last)
		return 1;
	if (context->skb->gso_size) {
		*last = now;
		return 1;
	}
	return now - *last <= BURST_JIFFIES;
}

/* The UDP header of what comes to the tunnel's port, or NULL; who sent it is not known yet. */
static __always_inline const struct udphdr *tunnel_udp(struct context *context)
{
	const struct ethhdr *eth = context_start(context);
	const struct udphdr *udp = (const void *)(eth + 1) + sizeof(struct iphdr);

	if ((const void *)(udp + 1) > context_end(context))
		return 0;
#if OUTGATE_FAMILY == 6
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		udp = (const void *)(eth + 1) + sizeof(struct ipv6hdr);
		if ((const void *)(udp + 1) > context_end(context))
			return 0;
	} else
#endif
	if (eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	return udp->dest == bpf_htons(settings.tunnel_port) ? udp : 0;
}

/* Of the packet's own family or not; see decap(). */
static __always_inline int decap_any(struct context *context,
				     const struct runtime_config *config,
				     struct ip_address *node)
{
	const struct ethhdr *eth = context_start(context);
	__u32 size;

	if ((const void *)(eth + 1) > context_end(context))
		return 0;
#if OUTGATE_FAMILY == 6
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		size = decap_match_v6(context, config, node);
		return size ? decap_strip(context, sizeof(struct outer_v6), 0) : 0;
	}
#endif
	size = decap_match_v4(context, config, node);
	return size ? decap_strip(context, sizeof(struct outer_v4),
				  OUTGATE_FAMILY == 6 ? ADJ_ROOM_DECAP_L3_IPV6 : 0) : 0;
}

/**
 * decap - take the outer header off a packet that another node tunnelled to this one
 * @node: set to the address of the node
 *
 * Not inlined, to have a stack of its own. Packet pointers are invalid afterwards.
 * Return: 1; 0 where it is none, or not plain enough, and stays as it is; DECAP_FAILED.
 */
static __noinline int decap(struct context *context, struct ip_address *node)
{
	const struct runtime_config *config = runtime_config();
	const struct udphdr *udp;
	int result;

	if (settings.tunnel_way != TUNNEL_AUTO || !settings.tunnel_port || !config ||
	    settings.gateway_path == GATEWAY_STACK)
		return 0;
	udp = tunnel_udp(context);
	if (!udp || context->skb->vlan_present)
		/* A tag leads to another interface. */
		return 0;
	if (is_of_burst(context, udp->source))
		/* The device cuts super-packets right. */
		return 0;
	result = decap_any(context, config, node);
	if (result > 0)
		context->came_by = config->tunnel_ifindex;
	return result;
}

#endif
