/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading what an ICMP error quotes: the IP header of the datagram that was refused, and
 * the first 8 bytes after it at least (RFC 792), which hold its ports.
 * PURE: works on plain pointers (start, end), no map, no helper; also compiled for the host.
 */
#ifndef OUTGATE_QUOTE_H
#define OUTGATE_QUOTE_H

#include "parse.h"

#define QUOTED_L4_BYTES 8

/* Ethernet, two of the longest IP headers with ICMP's between them, a TCP header. */
#define QUOTE_PULL_BYTES \
	(ETH_HLEN + 2 * IP_SIZE_MAX + sizeof(struct icmp_echo) + sizeof(struct tcphdr))

struct quote {
	struct tuple tuple; /* as the quoted datagram's sender wrote it */
	/* Bytes from start: */
	__u32 icmp_offset; /* the ICMP header */
	__u32 ip_offset; /* the quoted IP header */
	__u32 l4_offset; /* what follows it */
	__u32 checksum_offset; /* the quoted L4 checksum; 0 where the quote ends before it */
	__u32 id; /* of the quoted datagram, network order; where it is a fragment */
	__u8 fragment; /* enum fragment */
};

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
	case OUR_ICMP:
		if (icmp->type == ICMP_ECHO)
			quote->tuple.source_port = icmp->id;
		else if (icmp->type == ICMP_ECHOREPLY)
			quote->tuple.destination_port = icmp->id;
		else
			return PACKET_ICMP;
		quote->checksum_offset = __builtin_offsetof(struct icmp_echo, checksum);
		break;
	case IPPROTO_SCTP:
		/* Its checksum knows no addresses, and its ports stay. */
		break;
	default:
		return PACKET_PROTOCOL;
	}
	if (quote->tuple.protocol != OUR_ICMP) {
		quote->tuple.source_port = ports->source;
		quote->tuple.destination_port = ports->dest;
	}
	if (quote->checksum_offset)
		quote->checksum_offset += quote->l4_offset;
	return PACKET_ICMP_ERROR;
}

/**
 * parse_quote - read what a packet of class PACKET_ICMP_ERROR quotes
 * @packet: as parse_packet() left it
 *
 * An error goes to who sent the quoted datagram, else it contradicts itself. Of a later
 * fragment (PACKET_FRAGMENT) the quote has no ports. TCP's checksum must lie in the error, in
 * the quoted datagram (what follows that is padding or an extension, RFC 4884) and in the frame.
 *
 * Return: PACKET_ICMP_ERROR, or why @packet names no flow; also kept in @packet->class.
 */
static inline __attribute__((always_inline)) enum packet_class
parse_quote(void *start, void *end, struct packet *packet, struct quote *quote)
{
	__u32 wanted, quoted, size = packet->l4_size - sizeof(struct icmp_echo);
	_Bool has_tcp_checksum;
	struct ip_header *ip;
	struct ip_view view;
	const void *l4;

	__builtin_memset(quote, 0, sizeof(*quote));
	packet->class = PACKET_BROKEN;
	quote->icmp_offset = packet->l4_offset;
	quote->ip_offset = packet->l4_offset + sizeof(struct icmp_echo);
	ip = packet_at(start, quote->ip_offset);
	if ((void *)(ip + 1) > end || ip_read(start, end, quote->ip_offset, &view))
		return packet->class;
	if (size < view.header_size + QUOTED_L4_BYTES ||
	    !address_equal(ip_source(ip), &packet->tuple.destination))
		return packet->class;
	quote->l4_offset = quote->ip_offset + view.header_size;
	l4 = packet_at(start, quote->l4_offset);
	if (l4 + QUOTED_L4_BYTES > end)
		return packet->class;

	quote->tuple.source = *ip_source(ip);
	quote->tuple.destination = *ip_destination(ip);
	quote->tuple.protocol = view.protocol;
	quote->fragment = view.fragment;
	quote->id = view.id;
	wanted = __builtin_offsetof(struct tcphdr, urg_ptr);
	quoted = size - view.header_size;
	has_tcp_checksum = quoted >= wanted && view.l4_size >= wanted && l4 + wanted <= end;
	if (view.fragment == FRAGMENT_LATER)
		packet->class = PACKET_FRAGMENT;
	else
		packet->class = parse_quoted_l4(quote, l4, has_tcp_checksum);
	return packet->class;
}

#endif
