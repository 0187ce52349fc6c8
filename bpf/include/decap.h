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
#include "vxlan.h"

/* BPF_F_ADJ_ROOM_DECAP_L3_IPV6 of Linux 6.3; older kernels refuse it. */
#define ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)

/* A header was taken off that cannot be put back: the packet must die. */
#define DECAP_FAILED (-1)

/* Is it VXLAN of our network, with a packet of our family in it? */
static __always_inline _Bool is_our_vxlan(const struct outer_tail *tail)
{
	return tail->udp.dest == bpf_htons(settings.tunnel_port) &&
	       tail->vxlan.flags == VXLAN_VNI_IS_VALID &&
	       tail->vxlan.vni == bpf_htonl(settings.tunnel_vni << 8) &&
	       tail->inner.h_proto == OUR_ETH_P;
}

/*
 * As a node writes it to us: whole, without options, not a part of a datagram, nothing behind
 * it, not marked by a congested router (the device hands the mark on), its checksum right.
 * UDP sums nothing up.
 */
static __always_inline _Bool is_plain_outer_v4(const struct outer_v4 *outer, __u32 size)
{
	const struct iphdr *ip = (const void *)outer;

	return ip->version == 4 && ip->ihl == 5 && ip->protocol == IPPROTO_UDP &&
	       is_our_vxlan(&outer->tail) &&
	       !(ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET)) &&
	       (ip->tos & ECN_MASK) != ECN_CE && bpf_ntohs(ip->tot_len) == size &&
	       bpf_ntohs(outer->tail.udp.len) == size - sizeof(*ip) && !outer->tail.udp.check &&
	       sum_fold(words_sum(ip, sizeof(*ip) / 2)) == 0xffff;
}

/* Find out who sent it. Return the size of the outer header, or 0. */
static __always_inline __u32 decap_match_v4(struct context *context, struct ip_address *node)
{
	const struct outer_v4 *outer = context_start(context) + ETH_HLEN;
	struct ip_address here = {};
	__be32 source;

	if ((void *)(outer + 1) > context_end(context) ||
	    !is_plain_outer_v4(outer, context_size(context) - ETH_HLEN))
		return 0;
	source = outer->ip.saddr;
	*node = (struct ip_address){};
#if OUTGATE_FAMILY == 6
	node->word[2] = here.word[2] = bpf_htonl(0xffff);
#endif
	node->word[ADDRESS_WORDS - 1] = source;
	here.word[ADDRESS_WORDS - 1] = outer->ip.daddr;
	if (!bpf_map_lookup_elem(&outgate_node_v4, &source) || !is_host_address(&here))
		return 0;
	return sizeof(*outer);
}

#if OUTGATE_FAMILY == 6
/* UDP sums it up. That nobody looks: what is inside has a sum of its own, addresses included. */
static __always_inline _Bool is_plain_outer_v6(const struct outer_v6 *outer, __u32 size)
{
	const struct ipv6hdr *ip = (const void *)outer;

	return ip->version == 6 && ip->nexthdr == IPPROTO_UDP && is_our_vxlan(&outer->tail) &&
	       (ip->flow_lbl[0] >> 4 & ECN_MASK) != ECN_CE &&
	       sizeof(*ip) + bpf_ntohs(ip->payload_len) == size &&
	       outer->tail.udp.len == ip->payload_len && outer->tail.udp.check;
}

static __always_inline __u32 decap_match_v6(struct context *context, struct ip_address *node)
{
	const struct outer_v6 *outer = context_start(context) + ETH_HLEN;
	struct ip_address here;

	if ((void *)(outer + 1) > context_end(context) ||
	    !is_plain_outer_v6(outer, context_size(context) - ETH_HLEN))
		return 0;
	__builtin_memcpy(node, &outer->ip.saddr, sizeof(*node));
	__builtin_memcpy(&here, &outer->ip.daddr, sizeof(here));
	if (!bpf_map_lookup_elem(&outgate_node_v6, node) || !is_host_address(&here))
		return 0;
	return sizeof(*outer);
}
#endif

/*
 * Take @size bytes of outer header off, and its Ethernet header: the inner one stays. Not of a
 * part of a datagram: it would overtake one that the device has yet to put together.
 */
static __always_inline int decap_strip(struct context *context, __u32 size, __u64 flags)
{
	struct ethhdr *inner = context_start(context) + size;
	const struct ip_header *ip = (const void *)(inner + 1);
	__u8 destination[ETH_ALEN], source[ETH_ALEN];
	struct ethhdr *eth;

	if ((const void *)(ip + 1) > context_end(context) || ip_may_be_part(ip))
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
	const struct ethhdr *eth = context_start(context);
	__u32 size;

	if (settings.tunnel_way != TUNNEL_AUTO || !settings.tunnel_port || !config ||
	    settings.gateway_path == GATEWAY_STACK)
		return 0;
	if (context->skb->gso_size || context->skb->vlan_present ||
	    (void *)(eth + 1) > context_end(context))
		/* The device cuts super-packets right; a tag leads to another interface. */
		return 0;
	context->came_by = config->tunnel_ifindex;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		size = decap_match_v4(context, node);
		if (!size)
			return 0;
		return decap_strip(context, sizeof(struct outer_v4),
				   OUTGATE_FAMILY == 6 ? ADJ_ROOM_DECAP_L3_IPV6 : 0);
	}
#if OUTGATE_FAMILY == 6
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		size = decap_match_v6(context, node);
		if (!size)
			return 0;
		return decap_strip(context, sizeof(struct outer_v6), 0);
	}
#endif
	return 0;
}

#endif
