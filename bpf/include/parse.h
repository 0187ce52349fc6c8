/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading one packet: Ethernet, IP, and the ports of TCP, UDP, SCTP and ICMP echo.
 * PURE: works on plain pointers (start, end), no map, no helper; also compiled for the host.
 */
#ifndef OUTGATE_PARSE_H
#define OUTGATE_PARSE_H

#include <linux/if_ether.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "ip.h"

/* RFC 792 and RFC 4443; <linux/icmp.h> drags the C library in. */
#if OUTGATE_FAMILY == 4
#define ICMP_DEST_UNREACH 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_ECHO 8
#define ICMP_ECHOREPLY 0
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#else
#define ICMP_DEST_UNREACH 1
#define ICMP_PACKET_TOO_BIG 2
#define ICMP_TIME_EXCEEDED 3
#define ICMP_PARAMETER_PROBLEM 4
#define ICMP_ECHO 128
#define ICMP_ECHOREPLY 129
#endif

struct icmp_echo {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be16 id;
	__be16 sequence;
};

/* RFC 9260, 3.1: what every packet of SCTP begins with. */
struct sctp_header {
	__be16 source;
	__be16 dest;
	__be32 verification_tag;
	__u32 checksum;
};

/* Ethernet, the longest IP header, the part of a TCP header that we read. */
#define PULL_BYTES (ETH_HLEN + IP_SIZE_MAX + sizeof(struct tcphdr))

enum packet_class {
	PACKET_OTHER = 0, /* no IP: ARP, ... */
	PACKET_OTHER_FAMILY, /* IP, and the business of the other family's program */
	PACKET_BROKEN, /* of our family, and cut short or contradicting itself */
	PACKET_FLOW, /* tuple is whole */
	PACKET_FRAGMENT, /* a later part of a datagram: the tuple has no ports */
	PACKET_ICMP, /* ICMP other than echo and errors: likewise */
	PACKET_ICMP_ERROR, /* likewise; the flow that it speaks of is in its quote (quote.h) */
	PACKET_PROTOCOL, /* another protocol: likewise */
};

struct packet {
	__u32 l4_offset; /* bytes from start; 0 where not even addresses could be read */
	__u32 l4_size; /* bytes, as the IP header says; what follows in the frame is padding */
	__u32 header_size; /* bytes of IP header, and of TCP's or UDP's where class is FLOW */
	__u32 id; /* of the datagram, network order; where it is a fragment */
	enum packet_class class;
	struct tuple tuple; /* as the sender wrote it */
	__u8 fragment; /* enum fragment */
	_Bool dont_fragment;
	_Bool tcp_syn; /* SYN without ACK */
	_Bool tcp_accept; /* SYN with ACK */
	_Bool tcp_fin;
	_Bool tcp_rst;
	_Bool echo_request;
	_Bool zero_checksum; /* UDP's says that there is none */
};

static inline __attribute__((always_inline)) enum packet_class
parse_icmp(struct packet *packet, const struct icmp_echo *icmp)
{
	switch (icmp->type) {
	case ICMP_ECHO:
		packet->tuple.source_port = icmp->id;
		packet->echo_request = 1;
		return PACKET_FLOW;
	case ICMP_ECHOREPLY:
		packet->tuple.destination_port = icmp->id;
		return PACKET_FLOW;
	case ICMP_DEST_UNREACH:
#if OUTGATE_FAMILY == 4
	case ICMP_SOURCE_QUENCH:
#else
	case ICMP_PACKET_TOO_BIG:
#endif
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM:
		return PACKET_ICMP_ERROR;
	default:
		return PACKET_ICMP;
	}
}

static inline __attribute__((always_inline)) enum packet_class
parse_l4(struct packet *packet, void *l4, void *end)
{
	struct tuple *tuple = &packet->tuple;
	__u32 size = packet->l4_size;

	if (tuple->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;

		if ((void *)(tcp + 1) > end || size < sizeof(*tcp))
			return PACKET_BROKEN;
		tuple->source_port = tcp->source;
		tuple->destination_port = tcp->dest;
		packet->tcp_syn = tcp->syn && !tcp->ack;
		packet->tcp_accept = tcp->syn && tcp->ack;
		packet->tcp_fin = tcp->fin;
		packet->tcp_rst = tcp->rst;
		packet->header_size += tcp->doff * 4;
		return PACKET_FLOW;
	}
	if (tuple->protocol == IPPROTO_UDP) {
		struct udphdr *udp = l4;

		if ((void *)(udp + 1) > end || size < sizeof(*udp))
			return PACKET_BROKEN;
		tuple->source_port = udp->source;
		tuple->destination_port = udp->dest;
		packet->zero_checksum = !udp->check;
		packet->header_size += sizeof(*udp);
		return PACKET_FLOW;
	}
	if (tuple->protocol == IPPROTO_SCTP) {
		struct sctp_header *sctp = l4;

		if ((void *)(sctp + 1) > end || size < sizeof(*sctp))
			return PACKET_BROKEN;
		tuple->source_port = sctp->source;
		tuple->destination_port = sctp->dest;
		packet->header_size += sizeof(*sctp);
		return PACKET_FLOW;
	}
	if (tuple->protocol == OUR_ICMP) {
		struct icmp_echo *icmp = l4;

		if ((void *)(icmp + 1) > end || size < sizeof(*icmp))
			return PACKET_BROKEN;
		return parse_icmp(packet, icmp);
	}
	return PACKET_PROTOCOL;
}

/**
 * parse_packet - read the packet that lies between @start and @end
 * @packet: filled
 *
 * Return: what kind of packet it is, also kept in @packet->class.
 */
static inline __attribute__((always_inline)) enum packet_class
parse_packet(void *start, void *end, struct packet *packet)
{
	struct ethhdr *eth = start;
	struct ip_header *ip = (void *)(eth + 1);
	struct ip_view view;

	__builtin_memset(packet, 0, sizeof(*packet));
	if ((void *)(eth + 1) > end)
		return packet->class;
	if (eth->h_proto == OTHER_ETH_P)
		packet->class = PACKET_OTHER_FAMILY;
	if (eth->h_proto != OUR_ETH_P)
		return packet->class;

	packet->class = PACKET_BROKEN;
	if ((void *)(ip + 1) > end)
		return packet->class;
	if (ip_read(start, end, ETH_HLEN, &view))
		return packet->class;
	packet->l4_offset = ETH_HLEN + view.header_size;
	packet->l4_size = view.l4_size;
	packet->header_size = view.header_size;
	packet->dont_fragment = view.dont_fragment;
	packet->fragment = view.fragment;
	packet->id = view.id;
	packet->tuple.source = *ip_source(ip);
	packet->tuple.destination = *ip_destination(ip);
	packet->tuple.protocol = view.protocol;
	if (view.fragment == FRAGMENT_LATER)
		packet->class = PACKET_FRAGMENT;
	else
		packet->class = parse_l4(packet, packet_at(start, packet->l4_offset), end);
	if (view.fragment == FRAGMENT_FIRST && packet->class == PACKET_ICMP_ERROR)
		/* An error fits one packet (RFC 1812, 4.3.2.3; RFC 4443, 2.4). */
		packet->class = PACKET_ICMP;
	return packet->class;
}

/**
 * parse_plain - as parse_packet(), of a whole flow's packet without options or extensions
 *
 * What DF says is not read: it matters to nobody who calls this.
 * Return: is it one? Else @packet holds nothing.
 */
static inline __attribute__((always_inline)) _Bool
parse_plain(void *start, void *end, struct packet *packet)
{
	struct ethhdr *eth = start;
	struct ip_header *ip = (void *)(eth + 1);

	__builtin_memset(packet, 0, sizeof(*packet));
	if ((void *)(ip + 1) > end || eth->h_proto != OUR_ETH_P || !ip_is_plain(ip))
		return 0;
	packet->l4_offset = ETH_HLEN + sizeof(*ip);
	packet->l4_size = ip_total_size(ip) - sizeof(*ip);
	packet->header_size = sizeof(*ip);
	packet->tuple.source = *ip_source(ip);
	packet->tuple.destination = *ip_destination(ip);
	packet->tuple.protocol = ip_protocol(ip);
	packet->class = parse_l4(packet, ip + 1, end);
	return packet->class == PACKET_FLOW;
}

/* Return the tuple of the other direction. */
static inline __attribute__((always_inline)) struct tuple
tuple_reverse(const struct tuple *tuple)
{
	return (struct tuple){
		.source = tuple->destination,
		.destination = tuple->source,
		.source_port = tuple->destination_port,
		.destination_port = tuple->source_port,
		.protocol = tuple->protocol,
	};
}

/* Two halves of 32 bits, well mixed (the finalizer of MurmurHash3). */
static inline __attribute__((always_inline)) __u32 flow_hash(const struct tuple *tuple)
{
	__u32 hash = 0;

	for (int i = 0; i < ADDRESS_WORDS; i++)
		hash = hash * 0x9e3779b1 + (tuple->source.word[i] ^
					    tuple->destination.word[i] * 0x9e3779b1);
	hash ^= ((__u32)tuple->source_port << 16 | tuple->destination_port) * 0x85ebca6b;
	hash ^= tuple->protocol;
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

/* Where the checksum lies in the header of @protocol. */
static inline __attribute__((always_inline)) __u32 checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return __builtin_offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return __builtin_offsetof(struct udphdr, check);
	default:
		return __builtin_offsetof(struct icmp_echo, checksum);
	}
}

#endif
