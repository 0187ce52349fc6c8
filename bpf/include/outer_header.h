/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The tunnel's outer header, as the kernel's VXLAN device would write it, and the inner packets
 * that can have it written without the device.
 */
#ifndef OUTGATE_OUTER_HEADER_H
#define OUTGATE_OUTER_HEADER_H

#include "config.h"
#include "context.h"
#include "vxlan.h"

#define TUNNEL_TTL 64

/* BPF_FIB_LOOKUP_SRC of Linux 6.7, and _SKIP_NEIGH of 6.3; older kernels refuse them. */
#define FIB_LOOKUP_SKIP_NEIGH (1U << 2)
#define FIB_LOOKUP_SRC (1U << 4)

/* The node itself sends, as the device does: rules about where packets come in by do not count. */
#define LOOPBACK_IFINDEX 1

/* Is the outer header one of IPv4? */
static __always_inline _Bool is_outer_v4(const struct ip_address *endpoint)
{
#if OUTGATE_FAMILY == 4
	(void)endpoint;
	return 1;
#else
	return address_is_mapped(endpoint);
#endif
}

/* What to ask the kernel for the way to node @endpoint. */
static __always_inline struct bpf_fib_lookup outer_route_query(const struct ip_address *endpoint)
{
	struct bpf_fib_lookup query = {
		.family = is_outer_v4(endpoint) ? AF_INET : AF_INET6,
		.ifindex = LOOPBACK_IFINDEX,
		.tot_len = 1, /* asks for the route's MTU */
	};

	if (is_outer_v4(endpoint))
		query.ipv4_dst = endpoint->word[ADDRESS_WORDS - 1];
	else
		__builtin_memcpy(query.ipv6_dst, endpoint, sizeof(*endpoint));
	return query;
}

/* From which address an IPv6 outer header comes: the agent's choice, else the route's. */
static __always_inline const struct any_address *
outer_source(const struct runtime_config *config, const struct any_address *of_route)
{
	const struct any_address *source = &config->tunnel_source;

	return source->word[0] | source->word[1] | source->word[2] | source->word[3] ? source
										      : of_route;
}

/* Does an IP packet of @size fit the tunnel to node @endpoint, over a route with @mtu? */
static __always_inline _Bool fits_tunnel(__u32 size, const struct runtime_config *config,
					 const struct ip_address *endpoint, __u32 mtu)
{
	return (!config->tunnel_mtu || size <= config->tunnel_mtu) &&
	       size + sizeof(struct outer_v6) <= mtu + (is_outer_v4(endpoint) ? 20 : 0);
}

/* The source port of a flow, as the kernel's device takes it for the same hash. */
static __always_inline __be16 outer_port(const struct tuple *tuple)
{
	__u32 hash = flow_hash(tuple);

	hash ^= hash << 16;
	return bpf_htons(OUTER_PORT_FIRST +
			 ((__u64)hash * (OUTER_PORT_LAST - OUTER_PORT_FIRST) >> 32));
}

/* RFC 6040: what a router may mark goes out, that one has marked it does not. */
static __always_inline __u8 outer_ecn(__u8 inner)
{
	return (inner & ECN_MASK) == ECN_CE ? ECN_ECT_0 : inner & ECN_MASK;
}

static __always_inline void outer_tail_write(struct outer_tail *tail, __be16 source_port,
					     __u32 size)
{
	tail->udp.source = source_port;
	tail->udp.dest = bpf_htons(settings.tunnel_port);
	tail->udp.len = bpf_htons(size);
	tail->udp.check = 0;
	tail->vxlan.flags = VXLAN_VNI_IS_VALID;
	tail->vxlan.vni = bpf_htonl(settings.tunnel_vni << 8);
}

/*
 * What the inner packet adds to the outer UDP checksum, or -1 where only the whole packet
 * would tell. Behind a plain header TCP, UDP and ICMPv6 sum up to zero together with their
 * pseudo header, also if a device is to complete that (the kernel's "local checksum offload").
 * So the addresses cancel out, and what is left is told by the header alone.
 */
static __always_inline __s64 inner_sum(const struct ipv6hdr *ip, const void *end)
{
	const struct udphdr *udp = (const void *)(ip + 1);

	if (ip->nexthdr == IPPROTO_UDP) {
		if ((const void *)(udp + 1) > end || !udp->check)
			return -1;
	} else if (ip->nexthdr != IPPROTO_TCP && ip->nexthdr != NEXT_ICMPV6) {
		return -1;
	}
	return words_sum(ip, 2) + *(const __u16 *)&ip->nexthdr +
	       (__u16)~bpf_htons(ip->nexthdr);
}

/* What the inner header says, and whether the packet is one to be written here. */
struct inner_view {
	struct ethhdr eth;
	__u8 ecn;
	__s64 sum; /* see inner_sum() */
};

/*
 * Is all of the packet there, and nothing else? A link pads what is shorter than 60 bytes; IPv4's
 * outer header takes that along as the device does, an IPv6 one would have to sum it up.
 */
static __always_inline _Bool has_right_size(const struct ip_header *ip, __u32 size)
{
	return OUTGATE_FAMILY == 4 ? ip_total_size(ip) <= size : ip_total_size(ip) == size;
}

/* Return 0, or -1 where the packet is not plain. Parts keep their order behind the device. */
static __always_inline int inner_read(struct context *context, struct inner_view *view)
{
	const struct ethhdr *eth = context_start(context);
	const struct ip_header *ip = (const void *)(eth + 1);

	if ((const void *)(ip + 1) > context_end(context) ||
	    !has_right_size(ip, context_size(context) - ETH_HLEN) || ip_may_be_part(ip))
		return -1;
	view->eth = *eth;
#if OUTGATE_FAMILY == 4
	view->ecn = outer_ecn(ip->tos);
	view->sum = -1;
#else
	view->ecn = outer_ecn(ip->flow_lbl[0] >> 4);
	view->sum = inner_sum(ip, context_end(context));
#endif
	return 0;
}

/* @size: bytes of the outer packet. */
static __always_inline void outer_fill_v4(struct outer_v4 *outer, const struct inner_view *view,
					  __be32 source, __be32 destination, __be16 port,
					  __u32 size)
{
	*outer = (struct outer_v4){
		.ip = {
			.version = 4,
			.ihl = sizeof(struct iphdr) / 4,
			.tos = view->ecn,
			.tot_len = bpf_htons(size),
			.id = bpf_get_prandom_u32(),
			.ttl = TUNNEL_TTL,
			.protocol = IPPROTO_UDP,
			.saddr = source,
			.daddr = destination,
		},
		.tail.inner = view->eth,
	};
	outer_tail_write(&outer->tail, port, size - sizeof(outer->ip));
	outer->ip.check = ~sum_fold(words_sum(outer, sizeof(outer->ip) / 2));
}

#if OUTGATE_FAMILY == 6
/* The same; the inner packet must have a sum, see inner_sum(). */
static __always_inline void outer_fill_v6(struct outer_v6 *outer, const struct inner_view *view,
					  const struct any_address *source,
					  const struct ip_address *destination, __be16 port,
					  __u32 size)
{
	__u32 payload = size - sizeof(outer->ip);
	__u64 sum;
	__u16 check;

	*outer = (struct outer_v6){
		.ip = {
			.version = 6,
			.flow_lbl[0] = view->ecn << 4,
			.payload_len = bpf_htons(payload),
			.nexthdr = IPPROTO_UDP,
			.hop_limit = TUNNEL_TTL,
		},
		.tail.inner = view->eth,
	};
	__builtin_memcpy(&outer->ip.saddr, source, sizeof(outer->ip.saddr));
	__builtin_memcpy(&outer->ip.daddr, destination, sizeof(outer->ip.daddr));
	outer_tail_write(&outer->tail, port, payload);
	sum = words_sum(&outer->ip.saddr, 2 * sizeof(outer->ip.saddr) / 2);
	sum += words_sum(&outer->tail, sizeof(outer->tail) / 2);
	sum += bpf_htons(payload) + bpf_htons(IPPROTO_UDP) + view->sum;
	check = ~sum_fold(sum);
	outer->tail.udp.check = check ? check : 0xffff;
}
#endif

#endif
