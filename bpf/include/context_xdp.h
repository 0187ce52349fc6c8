/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * In place of context.h: the XDP side of the few steps that differ between contexts. An XDP
 * program includes it first; its guard keeps the tc side out.
 *
 * No packet is a super-packet here, its checksums are finished or wrong, and nothing lies
 * beside it but further buffers (context_is_whole()).
 */
#ifndef OUTGATE_CONTEXT_H
#define OUTGATE_CONTEXT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "parse.h"
#include "verdict.h"

struct context {
	struct xdp_md *xdp;
	__u32 offset; /* bytes before the packet that is looked at: an outer header */
	_Bool is_veth; /* what it is to be sent out of */
};

/* Verifier: "invalid size of register spill", of half a pointer, where only that is needed. */
static __always_inline void *whole_pointer(__u32 half)
{
	void *pointer = (void *)(long)half;

	asm volatile("" : "+r"(pointer));
	return pointer;
}

/* Where the frame begins, outer header included. */
static __always_inline void *context_frame(struct context *context)
{
	return whole_pointer(context->xdp->data);
}

static __always_inline void *context_start(struct context *context)
{
	return context_frame(context) + context->offset;
}

static __always_inline void *context_end(struct context *context)
{
	return whole_pointer(context->xdp->data_end);
}

/* Verifier: "32-bit pointer arithmetic prohibited". */
static __always_inline __u32 distance(const void *from, const void *to)
{
	__u64 bytes = to - from;

	asm volatile("" : "+r"(bytes));
	return bytes;
}

static __always_inline __u32 context_size(struct context *context)
{
	return distance(context_start(context), context_end(context));
}

/* Is all of the packet between start and end? */
static __always_inline _Bool context_is_whole(struct context *context)
{
	return bpf_xdp_get_buff_len(context->xdp) ==
	       distance(context_frame(context), context_end(context));
}

/**
 * context_replace_l4 - mend the L4 checksum at @l4_offset for a changed address and port
 * Return: 0, or a negative errno.
 */
static __always_inline int context_replace_l4(struct context *context, __u8 protocol,
					      __u32 l4_offset, const struct ip_address *from,
					      const struct ip_address *to, __be16 from_port,
					      __be16 to_port)
{
	__u16 *check = packet_at(context_start(context), l4_offset + checksum_offset(protocol));

	if ((void *)(check + 1) > context_end(context))
		return -1;
	/* ICMP has no pseudo header, ICMPv6 has. */
	if (OUTGATE_FAMILY == 6 || protocol != OUR_ICMP)
		*check = csum_replace_address(*check, from, to);
	*check = csum_replace2(*check, from_port, to_port);
	if (protocol == IPPROTO_UDP && !*check)
		/* In UDP 0 means: no checksum. */
		*check = 0xffff;
	return 0;
}

/* Here the kernel has no sum over the packet yet that would have to know. */
static __always_inline void context_changed(struct context *context, __u16 from, __u16 to)
{
	(void)context, (void)from, (void)to;
}

static __always_inline void context_changed_address(struct context *context,
						    const struct ip_address *from,
						    const struct ip_address *to)
{
	(void)context, (void)from, (void)to;
}

/*
 * Send out of @ifindex, MACs as they are. XDP_TX is a driver's shortest way back out, but a veth
 * does not wake its peer for it (unless that has an XDP program): the packet would wait there
 * for somebody else's.
 */
static __always_inline int context_send(struct context *context, __u32 ifindex)
{
	if (ifindex == context->xdp->ingress_ifindex && !context->is_veth)
		return XDP_TX;
	return bpf_redirect(ifindex, 0);
}

#endif
