/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ICMP errors. An error is translated by the entry of the flow that it speaks of, on its
 * outside and in its quote; it creates, refreshes and ends nothing (RFC 4787, REQ-12;
 * RFC 5382, REQ-9; RFC 5508, REQ-6): anybody on the way may send one.
 *
 * All by packet pointers: an ICMP message's checksum makes up for whatever changes in it (and,
 * in ICMPv6, in its pseudo header), so the kernel's own sums over the packet stay right.
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

/* Mend a quoted L4 checksum for a changed address (not in IPv4's ICMP) and port. */
static __always_inline __u16 quoted_checksum(__u8 protocol, __u16 check,
					     const struct ip_address *from,
					     const struct ip_address *to, __be16 from_port,
					     __be16 to_port)
{
	if (protocol == IPPROTO_UDP && !check)
		/* No checksum, and it stays so. */
		return 0;
	if (OUTGATE_FAMILY == 6 || protocol != OUR_ICMP)
		check = csum_replace_address(check, from, to);
	check = csum_replace2(check, from_port, to_port);
	return protocol == IPPROTO_UDP && !check ? 0xffff : check;
}

/* The quote was written at the other end: what is a source outside is its destination. */
static __always_inline __u32 quoted_port_offset(const struct quote *quote,
						enum nat_direction direction)
{
	if (quote->tuple.protocol == OUR_ICMP)
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
static __always_inline int quote_write(struct context *context,
				       enum nat_direction direction,
				       const struct ip_address *address, __be16 port)
{
	const struct quote *quote = &context->work->quote;
	void *start = context_start(context), *end = context_end(context);
	__be16 *port_field = packet_at(start, quoted_port_offset(quote, direction));
	struct icmp_echo *icmp = packet_at(start, quote->icmp_offset);
	struct ip_header *ip = packet_at(start, quote->ip_offset);
	__u16 *check = packet_at(start, quote->checksum_offset);
	struct ip_address from, *field;
	__u16 sum;

	if ((void *)(ip + 1) > end || (void *)(icmp + 1) > end ||
	    (void *)(port_field + 1) > end || (void *)(check + 1) > end)
		return -DROP_INVALID;
	field = direction == NAT_FORWARD ? ip_destination(ip) : ip_source(ip);
	from = *field;
	*field = *address;
	sum = csum_replace_address(icmp->checksum, &from, address);
#if OUTGATE_FAMILY == 4
	icmp_set(&ip->check, csum_replace_address(ip->check, &from, address), &sum);
#endif
	if (quote->checksum_offset)
		icmp_set(check, quoted_checksum(quote->tuple.protocol, *check, &from, address,
						*port_field, port), &sum);
	if (quote->fragment != FRAGMENT_LATER)
		icmp_set(port_field, port, &sum);
	icmp->checksum = sum;
	return 0;
}

/**
 * icmp_write - write one translation into an ICMP error, outside and in its quote
 * The parameters are those of nat_write(), and so is what it returns.
 */
static __always_inline int icmp_write(struct context *context, enum nat_direction direction,
				      const struct ip_address *address, __be16 port, _Bool routed)
{
	void *start = context_start(context), *end = context_end(context);
	struct icmp_echo *icmp = packet_at(start, context->work->quote.icmp_offset);
	struct ip_header *ip = start + ETH_HLEN;
	struct ip_address from;
	int error;

	if ((void *)(ip + 1) > end || (void *)(icmp + 1) > end)
		return -DROP_INVALID;
	error = ip_write(context, ip, direction, address, routed, &from);
	if (error)
		return error;
#if OUTGATE_FAMILY == 6
	icmp->checksum = csum_replace_address(icmp->checksum, &from, address);
#endif
	return quote_write(context, direction, address, port);
}

/* The flow that a pod's ICMP error speaks of, as the pod writes its tuple. */
static __always_inline void error_view(struct work *work)
{
	work->key = tuple_reverse(&work->quote.tuple);
}

/**
 * error_flow - the live flow that a pod's ICMP error speaks of, in outgate_flow
 * Return: NULL also when the pod was not who got the quoted datagram.
 */
static __always_inline struct flow_entry *error_flow(struct context *context,
						     const struct packet *packet)
{
	struct tuple *view = &context->work->key;

	error_view(context->work);
	if (packet->class != PACKET_ICMP_ERROR ||
	    !address_equal(&view->source, &packet->tuple.source))
		return 0;
	return flow_lookup_reply(view, bpf_jiffies64());
}

/**
 * error_translation - find the translation of the flow that a pod's ICMP error speaks of
 * Return: 0, or -DROP_*.
 */
static __always_inline int error_translation(struct context *context,
					     const struct packet *packet)
{
	struct work *work = context->work;
	const struct nat_entry *forward, *known = &work->translation;
	int error;

	if (packet->class != PACKET_ICMP_ERROR)
		return -unsupported(packet->class);
	error_view(work);
	work->key.direction = NAT_FORWARD;
	forward = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->key);
	if (!forward || !address_equal(&work->key.source, &packet->tuple.source))
		return -DROP_ICMP_NO_FLOW;
	error = nat_read(&work->translation, forward, &work->key);
	if (error)
		return error;
	if (!is_live(known->last_seen, work->key.protocol, known->tcp, bpf_jiffies64()))
		return -DROP_ICMP_NO_FLOW;
	return 0;
}

/**
 * error_send - translate an error that a pod sends, and send it (gateway path "direct")
 * @node: of the pod; none: this node
 * Return: the redirect's verdict, or -DROP_*.
 */
static __always_inline int error_send(struct context *context, const struct packet *packet,
				      const struct ip_address *node, __u32 *policy)
{
	struct nat_entry *translation = &context->work->translation;
	int error = error_translation(context, packet);

	if (error)
		return error;
	*policy = translation->policy;
	if (!address_equal(&translation->tunnel_endpoint, node))
		/* Another node's pod has this flow. */
		return -DROP_ICMP_NO_FLOW;
	error = nat_renew_route(context, translation, &packet->tuple.destination);
	if (error >= 0)
		error = icmp_write(context, NAT_FORWARD, &translation->address,
				   translation->port, 1);
	return error ? error : send_translated(context);
}

#endif
