/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The IP header of either family, and what lies between it and the transport's: options in
 * IPv4, extension headers in IPv6.
 * PURE: works on plain pointers (start, end), no map, no helper; also compiled for the host.
 */
#ifndef OUTGATE_IP_H
#define OUTGATE_IP_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>

#include "address.h"

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_ICMPV6 58
#define NEXT_DESTINATION 60

/* <linux/socket.h> does not tell. */
#define AF_INET 2
#define AF_INET6 10

#if OUTGATE_FAMILY == 4
#define ip_header iphdr
#define OUR_AF AF_INET
#define OUR_ETH_P bpf_htons(ETH_P_IP)
#define OTHER_ETH_P bpf_htons(ETH_P_IPV6)
#define OUR_ICMP IPPROTO_ICMP
#define IP_SIZE_MAX 60
#else
#define ip_header ipv6hdr
#define OUR_AF AF_INET6
#define OUR_ETH_P bpf_htons(ETH_P_IPV6)
#define OTHER_ETH_P bpf_htons(ETH_P_IP)
#define OUR_ICMP NEXT_ICMPV6
#define IP_SIZE_MAX (40 + EXTENSION_BYTES)
#endif

/* What is walked of extension headers; what has more is a protocol that we do not know. */
#define EXTENSION_COUNT 6
#define EXTENSION_BYTES 256

#define IP_DONT_FRAGMENT 0x4000
#define IP_MORE_FRAGMENTS 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff

/*
 * No field that we read or write lies further: Ethernet, two of the longest IP headers with
 * ICMP's between them, a TCP header.
 */
#define OFFSET_MASK 1023

enum fragment {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST, /* it has the ports, others follow */
	FRAGMENT_LATER, /* what follows the IP header is no transport header */
};

/* What an IP header says. */
struct ip_view {
	__u32 header_size; /* bytes, options and extension headers included */
	__u32 l4_size; /* bytes that follow, as the header says; ~0 for a super-packet */
	__u32 id; /* of the datagram, network order; of a fragment only */
	__u8 protocol;
	__u8 fragment; /* enum fragment */
	_Bool dont_fragment;
};

/*
 * Verifier: "R3 offset is outside of the packet". It forgets the bound of a spilled offset,
 * and the compiler drops a mask that it can prove useless.
 */
static inline __attribute__((always_inline)) void *packet_at(void *start, __u32 offset)
{
	asm volatile("" : "+r"(offset));
	return start + (offset & OFFSET_MASK);
}

static inline __attribute__((always_inline)) struct ip_address *ip_source(struct ip_header *ip)
{
	return (void *)&ip->saddr;
}

static inline __attribute__((always_inline)) struct ip_address *
ip_destination(struct ip_header *ip)
{
	return (void *)&ip->daddr;
}

/*
 * Is it a header that IPv6 has between its own and the transport's? As a packet's protocol it
 * is one that was not walked.
 */
static inline __attribute__((always_inline)) _Bool is_extension(__u8 protocol)
{
	return OUTGATE_FAMILY == 6 &&
	       (protocol == NEXT_HOP_BY_HOP || protocol == NEXT_ROUTING ||
		protocol == NEXT_FRAGMENT || protocol == NEXT_DESTINATION);
}

/* Is it a part of a datagram, or may it be, behind extension headers? */
static inline __attribute__((always_inline)) _Bool ip_may_be_part(const struct ip_header *ip)
{
#if OUTGATE_FAMILY == 4
	return ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET);
#else
	return is_extension(ip->nexthdr);
#endif
}

/* Bytes of the whole packet, as its header says; a super-packet may not be able to say. */
static inline __attribute__((always_inline)) __u32 ip_total_size(const struct ip_header *ip)
{
#if OUTGATE_FAMILY == 4
	return ip->tot_len ? bpf_ntohs(ip->tot_len) : ~0U;
#else
	return ip->payload_len ? sizeof(*ip) + bpf_ntohs(ip->payload_len) : ~0U;
#endif
}

/* Is it a right header with nothing behind it but the transport's, and no part of a datagram? */
static inline __attribute__((always_inline)) _Bool ip_is_plain(struct ip_header *ip)
{
#if OUTGATE_FAMILY == 4
	return ip->version == 4 && ip->ihl == sizeof(*ip) / 4 && !ip_may_be_part(ip) &&
	       ip_total_size(ip) >= sizeof(*ip);
#else
	return ip->version == 6 && !is_extension(ip->nexthdr) &&
	       !address_is_mapped(ip_source(ip)) && !address_is_mapped(ip_destination(ip));
#endif
}

static inline __attribute__((always_inline)) __u8 ip_protocol(const struct ip_header *ip)
{
#if OUTGATE_FAMILY == 4
	return ip->protocol;
#else
	return ip->nexthdr;
#endif
}

#if OUTGATE_FAMILY == 4

/* Return 0, or -1 where the header is cut short or contradicts itself. */
static inline __attribute__((always_inline)) int ip_read(void *start, void *end, __u32 offset,
							  struct ip_view *view)
{
	struct iphdr *ip = packet_at(start, offset);
	__u32 total_size;
	__u16 fragment;

	if ((void *)(ip + 1) > end)
		return -1;
	view->header_size = ip->ihl * 4;
	total_size = ip_total_size(ip);
	if (ip->version != 4 || view->header_size < sizeof(*ip) || total_size < view->header_size)
		return -1;
	fragment = bpf_ntohs(ip->frag_off);
	view->l4_size = total_size - view->header_size;
	view->protocol = ip->protocol;
	view->dont_fragment = !!(fragment & IP_DONT_FRAGMENT);
	view->id = ip->id;
	view->fragment = FRAGMENT_NONE;
	if (fragment & IP_FRAGMENT_OFFSET)
		view->fragment = FRAGMENT_LATER;
	else if (fragment & IP_MORE_FRAGMENTS)
		view->fragment = FRAGMENT_FIRST;
	return 0;
}

#else

/* As a fragment header begins (RFC 8200, 4.5). */
struct extension_header {
	__u8 next;
	__u8 size; /* in units of 8 bytes, without the first; reserved in a fragment header */
	__be16 place; /* fragment: offset in units of 8 bytes << 3 | more; routing: type, left */
	__be32 id;
};

/*
 * Walk to the transport header. Where the way is too long, or leads by other nodes first
 * (a routing header with segments left), the extension is left as the protocol.
 * Return the size of what was walked, or -1 where it is cut short.
 */
static inline __attribute__((always_inline)) int
extensions_walk(void *start, void *end, __u32 offset, struct ip_view *view)
{
	__u32 walked = 0;

	for (int i = 0; i < EXTENSION_COUNT; i++) {
		struct extension_header *header = packet_at(start, offset + walked);
		__u32 size = sizeof(*header);
		__u16 place;

		if (!is_extension(view->protocol))
			break;
		if ((void *)(header + 1) > end)
			return -1;
		place = bpf_ntohs(header->place);
		if (view->protocol == NEXT_FRAGMENT) {
			view->id = header->id;
			if (place & ~7)
				view->fragment = FRAGMENT_LATER;
			else if (place & 1)
				view->fragment = FRAGMENT_FIRST;
		} else if (view->protocol == NEXT_ROUTING && (place & 0xff)) {
			break;
		} else {
			size += header->size * 8;
		}
		if (walked + size > EXTENSION_BYTES)
			break;
		walked += size;
		view->protocol = header->next;
		if (view->fragment == FRAGMENT_LATER)
			break;
	}
	return walked;
}

static inline __attribute__((always_inline)) int ip_read(void *start, void *end, __u32 offset,
							  struct ip_view *view)
{
	struct ipv6hdr *ip = packet_at(start, offset);
	__u32 size;
	int walked;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return -1;
	if (address_is_mapped(ip_source(ip)) || address_is_mapped(ip_destination(ip)))
		/* In our maps it would be an IPv4 address's; Linux takes no packet from one. */
		return -1;
	size = ip_total_size(ip) - sizeof(*ip);
	view->protocol = ip->nexthdr;
	view->dont_fragment = 1; /* no router fragments IPv6 */
	view->id = 0;
	view->fragment = FRAGMENT_NONE;
	walked = extensions_walk(start, end, offset + sizeof(*ip), view);
	if (walked < 0 || (__u32)walked > size)
		return -1;
	view->header_size = sizeof(*ip) + walked;
	view->l4_size = size - walked;
	return 0;
}

#endif

/* Hops that the packet has left. */
static inline __attribute__((always_inline)) __u8 ip_hops(const struct ip_header *ip)
{
#if OUTGATE_FAMILY == 4
	return ip->ttl;
#else
	return ip->hop_limit;
#endif
}

#endif
