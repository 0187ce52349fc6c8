/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ICMP errors. An error is translated by the entry of the flow that it speaks of, on its
 * outside and in its quote; it creates, refreshes and ends nothing (RFC 4787, REQ-12;
 * RFC 5382, REQ-9; RFC 5508, REQ-6): anybody on the way may send one.
 *
 * All by packet pointers: an ICMP message has no pseudo header, and its checksum makes up for
 * whatever changes in it, so the kernel's own sums over the packet stay right.
 */
#ifndef OUTGATE_ICMP_H
#define OUTGATE_ICMP_H

#include "classify.h"
#include "nat.h"
#include "quote.h"

/* Change a field of the message and mend the ICMP checksum @sum, which covers it. */
static __always_inline void icmp_set(__u16 *field, __u16 value, __u16 *sum)
{
	*sum = csum_replace2(*sum, *field, value);
	*field = value;
}

/* Mend a quoted L4 checksum for a changed address (in TCP and UDP) and port. */
static __always_inline __u16 quoted_checksum(__u8 protocol, __u16 check, __be32 from, __be32 to,
					     __be16 from_port, __be16 to_port)
{
	if (protocol == IPPROTO_UDP && !check)
		/* No checksum, and it stays so. */
		return 0;
	if (protocol != IPPROTO_ICMP)
		check = csum_replace4(check, from, to);
	check = csum_replace2(check, from_port, to_port);
	return protocol == IPPROTO_UDP && !check ? 0xffff : check;
}

/* The quote was written at the other end: what is a source outside is its destination. */
static __always_inline __u32 quoted_port_offset(const struct quote *quote,
						enum nat_direction direction)
{
	if (quote->tuple.protocol == IPPROTO_ICMP)
		return quote->l4_offset + __builtin_offsetof(struct icmp_echo, id);
	return quote->l4_offset + (direction == NAT_FORWARD ? sizeof(__be16) : 0);
}

/**
 * quote_write - write a translation into what an error quotes
 * @direction: of the error; NAT_FORWARD changes the quoted destination, NAT_REVERSE the
 *             quoted source
 *
 * Checksums are mended, not made: one that was wrong stays so, and its receiver sees it.
 * Return: 0, or -DROP_INVALID, nothing written.
 */
static __always_inline int quote_write(struct context *context, const struct quote *quote,
				       enum nat_direction direction, __be32 address, __be16 port)
{
	void *start = context_start(context), *end = context_end(context);
	__u16 *check = quote_at(start, quote->checksum_offset);
	__be16 *port_field = quote_at(start, quoted_port_offset(quote, direction));
	struct icmp_echo *icmp = quote_at(start, quote->icmp_offset);
	struct iphdr *ip = quote_at(start, quote->ip_offset);
	__u16 sum, ip_check;
	__be32 from;

	if ((void *)(ip + 1) > end || (void *)(icmp + 1) > end ||
	    (void *)(port_field + 1) > end || (void *)(check + 1) > end)
		return -DROP_INVALID;
	sum = icmp->checksum;
	from = direction == NAT_FORWARD ? ip->daddr : ip->saddr;
	sum = csum_replace4(sum, from, address);
	ip_check = csum_replace4(ip->check, from, address);
	if (direction == NAT_FORWARD)
		ip->daddr = address;
	else
		ip->saddr = address;
	icmp_set(&ip->check, ip_check, &sum);
	if (quote->checksum_offset)
		icmp_set(check, quoted_checksum(quote->tuple.protocol, *check, from, address,
						*port_field, port), &sum);
	icmp_set(port_field, port, &sum);
	icmp->checksum = sum;
	return 0;
}

/**
 * icmp_write - write one translation into an ICMP error, outside and in its quote
 * The parameters are those of nat_write(), and so is what it returns.
 */
static __always_inline int icmp_write(struct context *context, const struct quote *quote,
				      enum nat_direction direction, __be32 address, __be16 port,
				      _Bool routed)
{
	struct iphdr *ip = context_start(context) + ETH_HLEN;
	int error;

	if ((void *)(ip + 1) > context_end(context))
		return -DROP_INVALID;
	error = ip_write(ip, direction, address, routed);
	return error ? error : quote_write(context, quote, direction, address, port);
}

/**
 * error_flow - the live flow that a pod's ICMP error speaks of, in outgate_flow_v4
 * Return: NULL also when the pod was not who got the quoted datagram.
 */
static __always_inline struct flow_entry *error_flow(const struct packet *packet,
						     const struct quote *quote)
{
	struct tuple4 view = tuple_reverse(&quote->tuple);

	if (packet->class != PACKET_ICMP_ERROR || view.source != packet->tuple.source)
		return 0;
	return flow_lookup_reply(&view, bpf_jiffies64());
}

/**
 * error_translation - find the translation of the flow that a pod's ICMP error speaks of
 * @found: a copy of the flow's forward entry; left alone on failure
 * Return: 0, or -DROP_*.
 */
static __always_inline int error_translation(const struct packet *packet,
					     const struct quote *quote, struct nat_entry *found)
{
	struct tuple4 view = tuple_reverse(&quote->tuple);
	struct tuple4 key = forward_key(&view);
	const struct nat_entry *forward;

	if (packet->class != PACKET_ICMP_ERROR)
		return -unsupported(packet->class);
	forward = bpf_map_lookup_elem(&outgate_snat_v4, &key);
	if (!forward || view.source != packet->tuple.source ||
	    !is_live(forward->last_seen, key.protocol, forward->tcp, bpf_jiffies64()))
		return -DROP_ICMP_NO_FLOW;
	*found = *forward;
	return 0;
}

/**
 * error_send - translate an error that a pod sends, and send it (gateway path "direct")
 * @node: of the pod; 0: this node
 * Return: the redirect's verdict, or -DROP_*.
 */
static __always_inline int error_send(struct context *context, const struct packet *packet,
				      const struct quote *quote, __be32 node, __u32 *policy)
{
	struct nat_entry forward = {};
	int error = error_translation(packet, quote, &forward);

	if (error)
		return error;
	*policy = forward.policy;
	if (forward.tunnel_endpoint != node)
		/* Another node's pod has this flow. */
		return -DROP_ICMP_NO_FLOW;
	error = nat_renew_route(context, &forward, packet->tuple.destination);
	if (!error)
		error = icmp_write(context, quote, NAT_FORWARD, forward.address, forward.port, 1);
	return error ? error : send_translated(context, &forward);
}

#endif
