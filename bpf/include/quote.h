/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading what an ICMP error quotes: the IPv4 header of the datagram that was refused, and
 * the first 8 bytes after it at least (RFC 792), which hold its ports.
 * PURE: works on plain pointers (start, end), no map, no helper; also compiled for the host.
 */
#ifndef OUTGATE_QUOTE_H
#define OUTGATE_QUOTE_H

#include "parse.h"

#define QUOTED_L4_BYTES 8

/* Ethernet, two of the longest IPv4 headers with ICMP's between them, a TCP header. */
#define QUOTE_PULL_BYTES (ETH_HLEN + 60 + sizeof(struct icmp_echo) + 60 + sizeof(struct tcphdr))

/* No field of a quote lies further: the last is TCP's checksum, at most at 158. */
#define QUOTE_OFFSET_MASK 255

struct quote {
	struct tuple4 tuple; /* as the quoted datagram's sender wrote it */
	/* Bytes from start: */
	__u32 icmp_offset; /* the ICMP header */
	__u32 ip_offset; /* the quoted IPv4 header */
	__u32 l4_offset; /* what follows it */
	__u32 checksum_offset; /* the quoted L4 checksum; 0 where the quote ends before it */
};

/*
 * Verifier: "R3 offset is outside of the packet". It forgets the bound of a spilled offset,
 * and the compiler drops a mask that it can prove useless.
 */
static inline __attribute__((always_inline)) void *quote_at(void *start, __u32 offset)
{
	asm volatile("" : "+r"(offset));
	return start + (offset & QUOTE_OFFSET_MASK);
}

/* Of @l4 QUOTED_L4_BYTES lie before the packet's end; TCP's checksum if @has_tcp_checksum. */
static inline __attribute__((always_inline)) enum packet_class
parse_quoted_l4(struct quote *quote, const void *l4, _Bool has_tcp_checksum)
{
	const struct icmp_echo *icmp = l4;
	const struct udphdr *ports = l4;

	switch (quote->tuple.protocol) {
	case IPPROTO_TCP:
		if (has_tcp_checksum)
			quote->checksum_offset = __builtin_offsetof(struct tcphdr, check);
		break;
	case IPPROTO_UDP:
		quote->checksum_offset = __builtin_offsetof(struct udphdr, check);
		break;
	case IPPROTO_ICMP:
		if (icmp->type == ICMP_ECHO)
			quote->tuple.source_port = icmp->id;
		else if (icmp->type == ICMP_ECHOREPLY)
			quote->tuple.destination_port = icmp->id;
		else
			return PACKET_ICMP;
		quote->checksum_offset = __builtin_offsetof(struct icmp_echo, checksum);
		break;
	default:
		return PACKET_PROTOCOL;
	}
	if (quote->tuple.protocol != IPPROTO_ICMP) {
		quote->tuple.source_port = ports->source;
		quote->tuple.destination_port = ports->dest;
	}
	if (quote->checksum_offset)
		quote->checksum_offset += quote->l4_offset;
	return PACKET_ICMP_ERROR;
}

/**
 * parse_quote - read what a packet of class PACKET_ICMP_ERROR quotes
 * @packet: as parse_packet() left it; its pointers are not used
 *
 * An error goes to who sent the quoted datagram, else it contradicts itself. Of a fragment
 * only the first has ports. TCP's checksum must lie in the error, in the quoted datagram (what
 * follows that is padding or an extension, RFC 4884) and in the frame.
 *
 * Return: PACKET_ICMP_ERROR, or why @packet names no flow; also kept in @packet->class.
 */
static inline __attribute__((always_inline)) enum packet_class
parse_quote(void *start, void *end, struct packet *packet, struct quote *quote)
{
	__u32 header_size, wanted, size = packet->l4_size - sizeof(struct icmp_echo);
	_Bool has_tcp_checksum;
	const struct iphdr *ip;
	const void *l4;

	__builtin_memset(quote, 0, sizeof(*quote));
	packet->class = PACKET_BROKEN;
	quote->icmp_offset = packet->l4_offset;
	quote->ip_offset = packet->l4_offset + sizeof(struct icmp_echo);
	ip = quote_at(start, quote->ip_offset);
	if ((void *)(ip + 1) > end)
		return packet->class;
	header_size = ip->ihl * 4;
	if (ip->version != 4 || header_size < sizeof(*ip) ||
	    size < header_size + QUOTED_L4_BYTES || ip->saddr != packet->tuple.destination)
		return packet->class;
	l4 = (void *)ip + header_size;
	if (l4 + QUOTED_L4_BYTES > end)
		return packet->class;

	quote->l4_offset = quote->ip_offset + header_size;
	quote->tuple.source = ip->saddr;
	quote->tuple.destination = ip->daddr;
	quote->tuple.protocol = ip->protocol;
	wanted = header_size + __builtin_offsetof(struct tcphdr, urg_ptr);
	has_tcp_checksum = size >= wanted && bpf_ntohs(ip->tot_len) >= wanted &&
			   (void *)ip + wanted <= end;
	if (ip->frag_off & bpf_htons(IP_FRAGMENT_OFFSET))
		packet->class = PACKET_FRAGMENT;
	else
		packet->class = parse_quoted_l4(quote, l4, has_tcp_checksum);
	return packet->class;
}

#endif
