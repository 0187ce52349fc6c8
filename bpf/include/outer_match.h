/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which packets come out of our tunnel: from a node that we believe, to this one, and plain
 * enough to be taken out of it without the kernel's VXLAN device.
 */
#ifndef OUTGATE_OUTER_MATCH_H
#define OUTGATE_OUTER_MATCH_H

#include "classify.h"
#include "config.h"
#include "context.h"
#include "lifetime.h"
#include "vxlan.h"

#define BELIEVED_SLOTS 1024

/* From a node that we believed, to this one: no need to look for either again. */
struct believed {
	struct ip_address node;
	struct ip_address here;
	__u32 generation; /* of routes, which counts nodes and own addresses too; plus 1 */
	__u64 asked; /* jiffies */
};

/* Not pinned: looked up anew by each program. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct believed));
	__uint(max_entries, BELIEVED_SLOTS);
} believed SEC(".maps");

/* Is it one of the addresses of nodes whose tunnel packets we believe? */
static __always_inline _Bool is_tunnel_source(const struct ip_address *node)
{
#if OUTGATE_FAMILY == 6
	if (!address_is_mapped(node))
		return bpf_map_lookup_elem(&outgate_node_v6, node);
#endif
	return bpf_map_lookup_elem(&outgate_node_v4, &node->word[ADDRESS_WORDS - 1]);
}

/* The slot of a node's address. */
static __always_inline __u32 believed_slot(const struct ip_address *node)
{
	__be32 word = 0;

	for (int i = 0; i < ADDRESS_WORDS; i++)
		word ^= node->word[i];
	return bpf_ntohl(word) % BELIEVED_SLOTS;
}

/*
 * Is it from a node that we believe, to this one? Asked anew once a second, and when nodes, own
 * addresses or routes change: the generation is read before they are, and begins behind them
 * (a CPU that reads it later all the same is wrong for that second).
 */
static __always_inline _Bool is_believed(const struct runtime_config *config,
					 const struct ip_address *node,
					 const struct ip_address *here)
{
	__u32 generation = *(volatile __u16 *)&config->route_generation + 1;
	__u32 slot = believed_slot(node);
	struct believed *known = bpf_map_lookup_elem(&believed, &slot);
	__u64 now = bpf_jiffies64();

	if (known && known->generation == generation && !is_stale(known->asked, now) &&
	    address_equal(&known->node, node) && address_equal(&known->here, here))
		return 1;
	barrier();
	if (!is_tunnel_source(node) || !is_host_address(here))
		return 0;
	if (known)
		*known = (struct believed){
			.node = *node, .here = *here, .generation = generation, .asked = now,
		};
	return 1;
}

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
static __always_inline __u32 decap_match_v4(struct context *context,
					    const struct runtime_config *config,
					    struct ip_address *node)
{
	const struct outer_v4 *outer = context_start(context) + ETH_HLEN;
	struct ip_address here = {};

	if ((void *)(outer + 1) > context_end(context) ||
	    !is_plain_outer_v4(outer, context_size(context) - ETH_HLEN))
		return 0;
	*node = (struct ip_address){};
#if OUTGATE_FAMILY == 6
	node->word[2] = here.word[2] = bpf_htonl(0xffff);
#endif
	node->word[ADDRESS_WORDS - 1] = outer->ip.saddr;
	here.word[ADDRESS_WORDS - 1] = outer->ip.daddr;
	return is_believed(config, node, &here) ? sizeof(*outer) : 0;
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

static __always_inline __u32 decap_match_v6(struct context *context,
					    const struct runtime_config *config,
					    struct ip_address *node)
{
	const struct outer_v6 *outer = context_start(context) + ETH_HLEN;
	struct ip_address here;

	if ((void *)(outer + 1) > context_end(context) ||
	    !is_plain_outer_v6(outer, context_size(context) - ETH_HLEN))
		return 0;
	__builtin_memcpy(node, &outer->ip.saddr, sizeof(*node));
	__builtin_memcpy(&here, &outer->ip.daddr, sizeof(here));
	if (address_is_mapped(node) || address_is_mapped(&here))
		/* In our maps that is an IPv4 address, on the wire it is nobody's. */
		return 0;
	return is_believed(config, node, &here) ? sizeof(*outer) : 0;
}
#endif

#endif
