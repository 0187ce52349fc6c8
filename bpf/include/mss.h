/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * MSS clamping: what goes through the tunnel must leave room for the tunnel's headers, and
 * TCP agrees on that in its first two packets (RFC 9293, 3.7.1). Lowered, never raised.
 */
#ifndef OUTGATE_MSS_H
#define OUTGATE_MSS_H

#include "context.h"
#include "encap.h"
#include "mss_option.h"
#include "verdict.h"

/* IP and TCP without options: an MSS does not count them (RFC 6691). */
#define MSS_HEADERS (sizeof(struct ip_header) + sizeof(struct tcphdr))

/* Not inlined: the options lie on its stack. */
static __noinline int mss_lower(struct context *context, __u32 l4_offset, __u32 most)
{
	__u8 options[TCP_OPTIONS_SIZE] = {}, data_offset;
	__u32 size, at, options_at = l4_offset + sizeof(struct tcphdr);
	__be16 from, to = bpf_htons(most);

	if (context_read(context, l4_offset + 12, &data_offset, 1))
		return 0;
	size = (data_offset >> 4) * 4 - sizeof(struct tcphdr);
	if (size < MSS_OPTION_SIZE || size > TCP_OPTIONS_SIZE)
		/* No room for the option, or a header that the receiver will refuse. */
		return 0;
	if (context_read(context, options_at, options, size))
		return 0;
	at = mss_find(options, size);
	if (!at || context_read(context, options_at + at, &from, sizeof(from)))
		return 0;
	if (bpf_ntohs(from) <= most)
		return 0;
	if (context_write(context, options_at + at, &to, sizeof(to)) ||
	    context_replace_tcp(context, l4_offset, options_at + at, from, to))
		return -DROP_REWRITE;
	return 0;
}

/**
 * mss_clamp - make the peers of a connection agree on segments that fit the tunnel
 *
 * For SYNs of both directions; others, and a SYN without the option, stay as they are.
 * Packet pointers are invalid afterwards.
 * Return: 0, or -DROP_REWRITE.
 */
static __always_inline int mss_clamp(struct context *context, const struct packet *packet)
{
	const struct runtime_config *config;

	if (!packet->tcp_syn && !packet->tcp_accept)
		return 0;
	config = runtime_config();
	if (!config || config->tunnel_mtu <= MSS_HEADERS)
		return 0;
	return mss_lower(context, packet->l4_offset, config->tunnel_mtu - MSS_HEADERS);
}

#endif
