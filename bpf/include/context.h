/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The few steps that differ between contexts: pulling headers into reach, L4 checksums,
 * redirects. This is the tc side; everything else works on plain packet pointers.
 */
#ifndef OUTGATE_CONTEXT_H
#define OUTGATE_CONTEXT_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "parse.h"
#include "quote.h"
#include "work.h"

/* What hooks decide; negative is -DROP_*. */
#define VERDICT_PASS TC_ACT_OK

#define VERDICT_DROP TC_ACT_SHOT
/* What the kernel is told of a pass: the next program decides, ours or another plugin's. */
#define VERDICT_NEXT TC_ACT_UNSPEC

/* BPF_F_IPV6 of Linux 6.16; older kernels refuse it. */
#define L4_CSUM_IPV6 (1ULL << 7)

/* Past the place where a partial checksum begins, however long the IP header is. */
#define PAST_IP_HEADER (ETH_HLEN + IP_SIZE_MAX + 1)

struct context {
	struct __sk_buff *skb;
	struct work *work;
	__u32 came_by; /* ifindex that it seems to have come by: the tunnel device; 0: the skb's */
	__u8 pass_reason; /* a reason to count a pass by, or 0 */
	_Bool is_released; /* it comes in once more, and is counted then (fragment.h) */
};

static __always_inline void *context_start(struct context *context)
{
	return (void *)(long)context->skb->data;
}

static __always_inline void *context_end(struct context *context)
{
	return (void *)(long)context->skb->data_end;
}

static __always_inline __u32 context_size(struct context *context)
{
	return context->skb->len;
}

/* Return 0, or a negative errno when @size bytes from @offset on are not all there. */
static __always_inline int context_read(struct context *context, __u32 offset, void *to,
					__u32 size)
{
	return bpf_skb_load_bytes(context->skb, offset, to, size);
}

/* Checksums are the caller's business. Packet pointers are invalid afterwards. */
static __always_inline int context_write(struct context *context, __u32 offset, const void *from,
					 __u32 size)
{
	return bpf_skb_store_bytes(context->skb, offset, from, size, 0);
}

/*
 * Size of the largest IP packet that this one becomes on a link, with @headers bytes of IP
 * and L4 headers: a super-packet is cut into segments, each with headers of its own.
 */
static __always_inline __u32 context_largest(struct context *context, __u32 headers)
{
	__u32 segment = context->skb->gso_size, size = context_size(context) - ETH_HLEN;

	/* Verifier: "same insn cannot be used with different pointers" when loads are merged. */
	asm volatile("" : "+r"(size));
	return segment ? segment + headers : size;
}

/**
 * context_remake - make the packet @size bytes long, for something wholly new
 *
 * Changing the tail ends segmentation; taking bytes away past the place where a partial
 * checksum begins makes the kernel forget that one is to be completed.
 * What the packet holds afterwards is undefined, packet pointers are invalid.
 * Return: 0, or a negative errno.
 */
static __always_inline int context_remake(struct context *context, __u32 size)
{
	int error = bpf_skb_change_tail(context->skb, size + PAST_IP_HEADER, 0);

	if (error)
		return error;
	return bpf_skb_adjust_room(context->skb, -PAST_IP_HEADER, BPF_ADJ_ROOM_MAC, 0);
}

/* Bring the first @size bytes into the linear part, where packet pointers reach them. */
static __always_inline void context_pull(struct context *context, __u32 size)
{
	__u32 whole = context_size(context);

	bpf_skb_pull_data(context->skb, size < whole ? size : whole);
}

/**
 * context_parse - parse, after the headers were brought into the linear part
 *
 * A packet's headers may lie in page fragments (GRO, AF_PACKET senders); only where they
 * cannot be read is the pull paid for. Without memory for it the packet is PACKET_BROKEN.
 */
static __always_inline enum packet_class context_parse(struct context *context,
							struct packet *packet)
{
	enum packet_class class;

	class = parse_packet(context_start(context), context_end(context), packet);
	if (class != PACKET_BROKEN ||
	    context_start(context) + context_size(context) <= context_end(context))
		return class;
	context_pull(context, PULL_BYTES);
	return parse_packet(context_start(context), context_end(context), packet);
}

/**
 * context_quote - read what an ICMP error quotes into the packet's work, see parse_quote()
 *
 * It may be pulled into reach first: packet pointers are invalid afterwards.
 */
static __always_inline enum packet_class context_quote(struct context *context,
							struct packet *packet)
{
	if (context_start(context) + context_size(context) > context_end(context))
		context_pull(context, QUOTE_PULL_BYTES);
	return parse_quote(context_start(context), context_end(context), packet,
			   &context->work->quote);
}

/* Mend the L4 checksum at @offset for a changed address of the pseudo header. */
static __always_inline int context_replace_pseudo(struct context *context, __u32 offset,
						  const struct ip_address *from,
						  const struct ip_address *to, __u64 flags)
{
#if OUTGATE_FAMILY == 4
	return bpf_l4_csum_replace(context->skb, offset, from->word[0], to->word[0],
				   BPF_F_PSEUDO_HDR | flags | 4);
#else
	__s64 change = bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);
	int error;

	flags |= BPF_F_PSEUDO_HDR;
	if (!bpf_l4_csum_replace(context->skb, offset, 0, change, flags | L4_CSUM_IPV6))
		return 0;
	error = bpf_l4_csum_replace(context->skb, offset, 0, change, flags);
	if (!error)
		/* It took the kernel's sum along, as if IPv6's header had a checksum too. */
		bpf_csum_update(context->skb, change);
	return error;
#endif
}

/**
 * context_replace_l4 - mend the L4 checksum at @l4_offset for a changed address and port
 *
 * By the kernel's helper, not by hand: it knows packets whose checksum is partial (the
 * device completes it), for which only the pseudo header may be mended.
 * Packet pointers are invalid afterwards.
 *
 * Return: 0, or a negative errno.
 */
static __always_inline int context_replace_l4(struct context *context, __u8 protocol,
					      __u32 l4_offset, const struct ip_address *from,
					      const struct ip_address *to, __be16 from_port,
					      __be16 to_port)
{
	__u32 offset = l4_offset + checksum_offset(protocol);
	/* In UDP 0 means: no checksum, and stays so. */
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	int error = 0;

	/* ICMP has no pseudo header, ICMPv6 has. */
	if (OUTGATE_FAMILY == 6 || protocol != OUR_ICMP)
		error = context_replace_pseudo(context, offset, from, to, flags);
	if (error || from_port == to_port)
		/* Most flows keep their port. */
		return error;
	return bpf_l4_csum_replace(context->skb, offset, from_port, to_port, flags | 2);
}

/* The kernel's sum over the packet, where it has one, must know a word that was changed. */
static __always_inline void context_changed(struct context *context, __u16 from, __u16 to)
{
	bpf_csum_update(context->skb, (__u16)~from + (__u32)to);
}

/* The same for an address that no checksum of the packet makes up for; IPv4's header does. */
static __always_inline void context_changed_address(struct context *context,
						    const struct ip_address *from,
						    const struct ip_address *to)
{
#if OUTGATE_FAMILY == 6
	bpf_csum_update(context->skb, bpf_csum_diff((__be32 *)from, sizeof(*from),
						    (__be32 *)to, sizeof(*to), 0));
#else
	(void)context, (void)from, (void)to;
#endif
}

/*
 * Mend the checksum of a TCP header for two bytes at @offset that were changed. At an odd
 * place each of them counts in the other half of a checksum's word.
 */
static __always_inline int context_replace_tcp(struct context *context, __u32 l4_offset,
					       __u32 offset, __be16 from, __be16 to)
{
	if ((offset - l4_offset) % 2) {
		from = __builtin_bswap16(from);
		to = __builtin_bswap16(to);
	}
	return bpf_l4_csum_replace(context->skb,
				   l4_offset + __builtin_offsetof(struct tcphdr, check), from, to,
				   2);
}

static __always_inline void context_mark(struct context *context, __u32 mask, __u32 mark)
{
	context->skb->mark = (context->skb->mark & ~mask) | mark;
}

/*
 * A VLAN tag lies beside the packet, not in it. It was meant for the link that the packet
 * came from; on the next one it would choose a network there. Packet pointers are invalid
 * afterwards. Return: 0, or a negative errno.
 */
static __always_inline int context_untag(struct context *context)
{
	return context->skb->vlan_present ? bpf_skb_vlan_pop(context->skb) : 0;
}

/* Send out of @ifindex; the kernel resolves @next_hop's MAC, and @next_hop itself if none. */
static __always_inline int context_redirect_next_hop(__u32 ifindex,
						     const struct ip_address *next_hop)
{
	struct bpf_redir_neigh params = { .nh_family = OUR_AF };

	if (address_is_none(next_hop))
		return bpf_redirect_neigh(ifindex, 0, 0, 0);
	/* A union: IPv4 has the first word. */
	__builtin_memcpy(&params.ipv6_nh, next_hop, sizeof(*next_hop));
	return bpf_redirect_neigh(ifindex, &params, sizeof(params), 0);
}

/* Send back out of the interface that the packet came in by, MACs as they are. */
static __always_inline int context_redirect_back(struct context *context)
{
	return bpf_redirect(context->skb->ifindex, 0);
}

/* Return 0, or -1 when the packet has no room for an Ethernet header. */
static __always_inline int context_write_macs(struct context *context, const __u8 *destination,
					      const __u8 *source)
{
	struct ethhdr *eth = context_start(context);

	if ((void *)(eth + 1) > context_end(context))
		return -1;
	__builtin_memcpy(eth->h_dest, destination, ETH_ALEN);
	__builtin_memcpy(eth->h_source, source, ETH_ALEN);
	return 0;
}

/* Hand to the pod behind the host-side veth @ifindex, as if its own interface got it. */
static __always_inline int context_redirect_pod(struct context *context, __u32 ifindex)
{
	bpf_skb_change_type(context->skb, 0 /* PACKET_HOST */);
	return bpf_redirect_peer(ifindex, 0);
}

#endif
