// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * xdp-netdev: what arrives from the wire, before the kernel makes a packet of it.
 *
 * The gateway's work for flows that are known, in both directions. Nothing is decided here:
 * what is new, over, unusual, or to be refused goes on to from_netdev as it came (XDP_PASS), and
 * not a byte of a packet is written before it is certain that it goes all the way.
 *
 * An interface has one such program, IPv4's, which goes on with IPv6's.
 */
#include "include/context_xdp.h"

#include "include/xdp_forward.h"
#include "include/xdp_reply.h"

/* The node that tunnelled this here, and the size of its outer header; or 0. */
static __always_inline __u32 match(struct context *context, const struct runtime_config *config,
				   const struct ethhdr *eth, struct ip_address *node)
{
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return decap_match_v4(context, config, node);
#if OUTGATE_FAMILY == 6
	return decap_match_v6(context, config, node);
#else
	return 0;
#endif
}

#if OUTGATE_FAMILY == 4
/* Is it IPv6's business, by itself or by what it carries? */
static __always_inline _Bool is_ipv6(struct context *context, const struct ethhdr *eth)
{
	const struct outer_v4 *outer = (const void *)(eth + 1);

	if (eth->h_proto != bpf_htons(ETH_P_IP))
		return eth->h_proto == bpf_htons(ETH_P_IPV6);
	return (const void *)(outer + 1) <= context_end(context) &&
	       outer->tail.inner.h_proto == bpf_htons(ETH_P_IPV6) &&
	       outer->tail.udp.dest == bpf_htons(settings.tunnel_port) &&
	       outer->ip.protocol == IPPROTO_UDP;
}
#endif

SEC("xdp.frags")
int FAMILY(xdp_netdev)(struct xdp_md *xdp)
{
	const struct runtime_config *config = runtime_config();
	struct context context = { .xdp = xdp };
	const struct ethhdr *eth = context_start(&context);
	struct ip_address node;
	__u32 outer_size;

	if (settings.gateway_path != GATEWAY_DIRECT || settings.tunnel_way != TUNNEL_AUTO ||
	    !settings.tunnel_port || !config || (void *)(eth + 1) > context_end(&context))
		return XDP_PASS;
#if OUTGATE_FAMILY == 4
	if (is_ipv6(&context, eth)) {
		bpf_tail_call(xdp, &outgate_xdp, XDP_PROGRAM_IPV6);
		return XDP_PASS;
	}
#endif
	if (eth->h_proto != OUR_ETH_P && eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	outer_size = match(&context, config, eth, &node);
	if (outer_size == sizeof(struct outer_v4))
		return xdp_forward(&context, config, &node, sizeof(struct outer_v4));
#if OUTGATE_FAMILY == 6
	if (outer_size == sizeof(struct outer_v6))
		return xdp_forward(&context, config, &node, sizeof(struct outer_v6));
#endif
	return eth->h_proto == OUR_ETH_P ? xdp_reply(&context, config) : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
