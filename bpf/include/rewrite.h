/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Writing a translation into a packet. */
#ifndef OUTGATE_REWRITE_H
#define OUTGATE_REWRITE_H

#include "context.h"
#include "csum.h"
#include "parse.h"
#include "verdict.h"

/* One hop less to live. Return 0, or -DROP_TTL_EXCEEDED, nothing written. */
static __always_inline int ip_hop(struct context *context, struct ip_header *ip)
{
#if OUTGATE_FAMILY == 4
	__u16 *hops = (__u16 *)&ip->ttl, before = *hops;

	(void)context;
	if (ip_hops(ip) <= 1)
		return -DROP_TTL_EXCEEDED;
	ip->ttl -= 1;
	ip->check = csum_replace2(ip->check, before, *hops);
#else
	__u16 *hops = (__u16 *)&ip->nexthdr, before = *hops;

	if (ip_hops(ip) <= 1)
		return -DROP_TTL_EXCEEDED;
	ip->hop_limit -= 1;
	/* IPv4's header sums to the same; here nothing makes up for the change. */
	context_changed(context, before, *hops);
#endif
	return 0;
}

/**
 * ip_write - write one translated address into an IP header, and mend its checksum
 * @from: set to the address before
 * The other parameters are those of nat_write(). Return: 0, or -DROP_TTL_EXCEEDED, nothing
 * written.
 */
static __always_inline int ip_write(struct context *context, struct ip_header *ip,
				    enum nat_direction direction,
				    const struct ip_address *address, _Bool routed,
				    struct ip_address *from)
{
	struct ip_address *field = direction == NAT_FORWARD ? ip_source(ip) : ip_destination(ip);
	int error = routed ? ip_hop(context, ip) : 0;

	if (error)
		return error;
	*from = *field;
	*field = *address;
#if OUTGATE_FAMILY == 4
	ip->check = csum_replace_address(ip->check, from, address);
#endif
	return 0;
}

/* Where the port of a packet lies that a translation writes. */
static __always_inline __u32 port_offset(const struct packet *packet,
					 enum nat_direction direction)
{
	if (packet->tuple.protocol == OUR_ICMP)
		return packet->l4_offset + __builtin_offsetof(struct icmp_echo, id);
	return packet->l4_offset + (direction == NAT_REVERSE ? sizeof(__be16) : 0);
}

/**
 * nat_write - write one translation into a packet
 * @direction: NAT_FORWARD changes the source, NAT_REVERSE the destination
 * @routed: this node forwards the packet in the kernel's place: one hop less to live
 *
 * Of a later fragment only the address changes: it has no port, and no checksum.
 * Packet pointers are invalid afterwards.
 * Return: 0, or -DROP_*; the packet may be half written then and must be dropped.
 */
static __always_inline int nat_write(struct context *context, const struct packet *packet,
				     enum nat_direction direction,
				     const struct ip_address *address, __be16 port, _Bool routed)
{
	void *start = context_start(context), *end = context_end(context);
	struct ip_header *ip = start + ETH_HLEN;
	__be16 from_port, *port_field = packet_at(start, port_offset(packet, direction));
	struct ip_address from;
	int error;

	if ((void *)(ip + 1) > end)
		return -DROP_INVALID;
	if (packet->fragment == FRAGMENT_LATER) {
		error = ip_write(context, ip, direction, address, routed, &from);
		if (!error)
			context_changed_address(context, &from, address);
		return error;
	}
	if ((void *)(port_field + 1) > end)
		return -DROP_INVALID;
	error = ip_write(context, ip, direction, address, routed, &from);
	if (error)
		return error;
	from_port = *port_field;
	*port_field = port;
	if (packet->tuple.protocol == IPPROTO_SCTP || packet->zero_checksum) {
		/* SCTP's checksum covers neither addresses nor, as they stay, ports. */
		context_changed_address(context, &from, address);
		context_changed(context, from_port, port);
		return 0;
	}
	if (context_replace_l4(context, packet->tuple.protocol, packet->l4_offset, &from, address,
			       from_port, port))
		return -DROP_REWRITE;
	return 0;
}

#endif
