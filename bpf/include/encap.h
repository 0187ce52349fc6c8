/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Into and out of the tunnel, by the kernel's VXLAN device in collect-metadata mode. */
#ifndef OUTGATE_ENCAP_H
#define OUTGATE_ENCAP_H

#include "config.h"
#include "context.h"
#include "verdict.h"

#define TUNNEL_TTL 64

static __always_inline const struct runtime_config *runtime_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&outgate_config, &zero);
}

/**
 * encap_redirect - send a packet to another node through the tunnel
 * @endpoint: that node's address
 * Return: the redirect's verdict, or -DROP_NO_TUNNEL.
 */
static __always_inline int encap_redirect(struct context *context, __be32 endpoint)
{
	const struct runtime_config *config = runtime_config();
	struct bpf_tunnel_key key = {
		.tunnel_id = settings.tunnel_vni,
		.remote_ipv4 = bpf_ntohl(endpoint),
		.tunnel_ttl = TUNNEL_TTL,
	};

	if (!config || !config->tunnel_ifindex)
		return -DROP_NO_TUNNEL;
	if (context_untag(context))
		return -DROP_REWRITE;
	if (bpf_skb_set_tunnel_key(context->skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return -DROP_NO_TUNNEL;
	return bpf_redirect(config->tunnel_ifindex, 0);
}

/*
 * Must this packet's sender make smaller ones? Only if it forbids fragments (DF): else the
 * tunnel device fragments the outer packet, and the other node puts it together again.
 */
static __always_inline _Bool exceeds_tunnel(struct context *context, const struct packet *packet)
{
	const struct runtime_config *config = runtime_config();

	return packet->dont_fragment && config && config->tunnel_mtu &&
	       context_largest(context, packet->header_size) > config->tunnel_mtu;
}

/* Return the node that sent a packet through the tunnel, or 0 if it is not one we believe. */
static __always_inline __be32 decap_source(struct context *context)
{
	struct bpf_tunnel_key key = {};
	__be32 source;

	if (bpf_skb_get_tunnel_key(context->skb, &key, sizeof(key), 0))
		return 0;
	if (key.tunnel_id != settings.tunnel_vni)
		return 0;
	source = bpf_htonl(key.remote_ipv4);
	return bpf_map_lookup_elem(&outgate_node_v4, &source) ? source : 0;
}

#endif
