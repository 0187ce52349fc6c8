/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading one packet: Ethernet, IPv4, and the ports of TCP, UDP and ICMP echo.
 * PURE: works on plain pointers (start, end), no map, no helper; also compiled for the host.
 */
#ifndef OUTGATE_PARSE_H
#define OUTGATE_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

#include "types.h"

/* RFC 792; <linux/icmp.h> drags the C library in. */
#define ICMP_ECHOREPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

/* What an Ethernet header says of a packet of our family, and of the other. */
#if OUTGATE_FAMILY == 4
#define OUR_ETH_P bpf_htons(ETH_P_IP)
#define OTHER_ETH_P bpf_htons(ETH_P_IPV6)
#else
#define OUR_ETH_P bpf_htons(ETH_P_IPV6)
#define OTHER_ETH_P bpf_htons(ETH_P_IP)
#endif

struct icmp_echo {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be16 id;
	__be16 sequence;
};

#define IP_DONT_FRAGMENT 0x4000
#define IP_MORE_FRAGMENTS 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff

/* Ethernet, the longest IPv4 header, the part of a TCP header that we read. */
#define PULL_BYTES (ETH_HLEN + 60 + sizeof(struct tcphdr))

enum packet_class {
	PACKET_OTHER = 0, /* no IP: ARP, ... */
	PACKET_OTHER_FAMILY, /* IP, and the business of the other family's program */
	PACKET_BROKEN, /* of our family, and cut short or contradicting itself */
	PACKET_FLOW, /* tuple is whole */
	PACKET_FRAGMENT, /* a part of a datagram: the tuple holds addresses and protocol only */
	PACKET_ICMP, /* ICMP other than echo and errors: likewise */
	PACKET_ICMP_ERROR, /* likewise; the flow that it speaks of is in its quote (quote.h) */
	PACKET_PROTOCOL, /* another protocol: likewise */
};

struct packet {
	struct ethhdr *eth;
	struct iphdr *ip;
	void *l4;
	__u32 l4_offset; /* bytes from start */
	__u32 l4_size; /* bytes, as the IP header says; what follows in the frame is padding */
	__u32 header_size; /* bytes of IP header, and of TCP's or UDP's where class is FLOW */
	enum packet_class class;
	struct tuple4 tuple; /* as the sender wrote it */
	_Bool dont_fragment;
	_Bool tcp_syn; /* SYN without ACK */
	_Bool tcp_accept; /* SYN with ACK */
	_Bool tcp_fin;
	_Bool tcp_rst;
	_Bool echo_request;
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
	case ICMP_SOURCE_QUENCH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM:
		return PACKET_ICMP_ERROR;
	default:
		return PACKET_ICMP;
	}
}

static inline __attribute__((always_inline)) enum packet_class
parse_l4(struct packet *packet, void *end)
{
	struct tuple4 *tuple = &packet->tuple;
	__u32 size = packet->l4_size;

	if (tuple->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = packet->l4;

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
		struct udphdr *udp = packet->l4;

		if ((void *)(udp + 1) > end || size < sizeof(*udp))
			return PACKET_BROKEN;
		tuple->source_port = udp->source;
		tuple->destination_port = udp->dest;
		packet->header_size += sizeof(*udp);
		return PACKET_FLOW;
	}
	if (tuple->protocol == IPPROTO_ICMP) {
		struct icmp_echo *icmp = packet->l4;

		if ((void *)(icmp + 1) > end || size < sizeof(*icmp))
			return PACKET_BROKEN;
		return parse_icmp(packet, icmp);
	}
	return PACKET_PROTOCOL;
}

/**
 * parse_packet - read the packet that lies between @start and @end
 * @packet: filled; its pointers are right only until the packet is changed or pulled
 *
 * Return: what kind of packet it is, also kept in @packet->class.
 */
static inline __attribute__((always_inline)) enum packet_class
parse_packet(void *start, void *end, struct packet *packet)
{
	__u32 header_size, total_size;

	__builtin_memset(packet, 0, sizeof(*packet));
	packet->eth = start;
	if ((void *)(packet->eth + 1) > end)
		return packet->class;
	if (packet->eth->h_proto == OTHER_ETH_P)
		packet->class = PACKET_OTHER_FAMILY;
	if (packet->eth->h_proto != OUR_ETH_P)
		return packet->class;
#if OUTGATE_FAMILY == 6
	packet->class = PACKET_OTHER_FAMILY;
	return packet->class;
#endif

	packet->class = PACKET_BROKEN;
	packet->ip = (void *)(packet->eth + 1);
	if ((void *)(packet->ip + 1) > end)
		return packet->class;
	header_size = packet->ip->ihl * 4;
	total_size = bpf_ntohs(packet->ip->tot_len);
	if (!total_size)
		/* Too long to say: a super-packet of more than 64 KiB, as long as its frame. */
		total_size = ~0U;
	if (packet->ip->version != 4 || header_size < sizeof(struct iphdr) ||
	    total_size < header_size)
		return packet->class;

	packet->l4 = (void *)packet->ip + header_size;
	packet->l4_offset = ETH_HLEN + header_size;
	packet->l4_size = total_size - header_size;
	packet->header_size = header_size;
	packet->dont_fragment = !!(packet->ip->frag_off & bpf_htons(IP_DONT_FRAGMENT));
	packet->tuple.source = packet->ip->saddr;
	packet->tuple.destination = packet->ip->daddr;
	packet->tuple.protocol = packet->ip->protocol;
	if (packet->ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET))
		packet->class = PACKET_FRAGMENT;
	else
		packet->class = parse_l4(packet, end);
	return packet->class;
}

/* Return the tuple of the other direction. */
static inline __attribute__((always_inline)) struct tuple4
tuple_reverse(const struct tuple4 *tuple)
{
	return (struct tuple4){
		.source = tuple->destination,
		.destination = tuple->source,
		.source_port = tuple->destination_port,
		.destination_port = tuple->source_port,
		.protocol = tuple->protocol,
	};
}

#endif
