/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Into the tunnel, by outer.h or by the kernel's VXLAN device in collect-metadata mode; and who
 * sent what comes out of the device.
 */
#ifndef OUTGATE_ENCAP_H
#define OUTGATE_ENCAP_H

#include "config.h"
#include "context.h"
#include "outer.h"
#include "verdict.h"

/*
 * Say where the tunnel must take the packet. In IPv6 also from which address: of several the
 * kernel takes the newest, and other nodes believe those of the Node object alone. An IPv4
 * endpoint gets no outer UDP checksum; over IPv6 a receiver refuses that (RFC 6935 allows, Linux
 * does not by default).
 */
static __always_inline int encap_set_key(struct context *context,
					 const struct runtime_config *config,
					 const struct ip_address *endpoint)
{
	struct bpf_tunnel_key key = {
		.tunnel_id = settings.tunnel_vni,
		.tunnel_ttl = TUNNEL_TTL,
	};

#if OUTGATE_FAMILY == 6
	if (!address_is_mapped(endpoint)) {
		__builtin_memcpy(key.remote_ipv6, endpoint, sizeof(*endpoint));
		__builtin_memcpy(key.local_ipv6, &config->tunnel_source, sizeof(key.local_ipv6));
		return bpf_skb_set_tunnel_key(context->skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6);
	}
#endif
	(void)config;
	key.remote_ipv4 = bpf_ntohl(endpoint->word[ADDRESS_WORDS - 1]);
	return bpf_skb_set_tunnel_key(context->skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX);
}

/**
 * encap_redirect - send a packet to another node through the tunnel
 * @endpoint: that node's address
 * Return: the redirect's verdict, or -DROP_NO_TUNNEL.
 */
static __always_inline int encap_redirect(struct context *context,
					  const struct ip_address *endpoint)
{
	const struct runtime_config *config = runtime_config();
	int verdict;

	if (!config || !config->tunnel_ifindex)
		return -DROP_NO_TUNNEL;
	if (context_untag(context))
		return -DROP_REWRITE;
	/* The device makes the source port of it, as we do, and links choose their queues. */
	bpf_set_hash(context->skb, flow_hash(&context->work->packet.tuple));
	verdict = outer_send(context, endpoint);
	if (verdict)
		return verdict;
	if (encap_set_key(context, config, endpoint))
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

/*
 * Find the node that sent a packet through the tunnel. Return: is it one we believe? An
 * IPv6 program takes outer headers of both families.
 */
static __always_inline _Bool decap_source(struct context *context, struct ip_address *node)
{
	struct bpf_tunnel_key key = {};

	*node = (struct ip_address){};
	if (!bpf_skb_get_tunnel_key(context->skb, &key, sizeof(key), 0)) {
		__be32 source = bpf_htonl(key.remote_ipv4);

#if OUTGATE_FAMILY == 6
		node->word[2] = bpf_htonl(0xffff);
#endif
		node->word[ADDRESS_WORDS - 1] = source;
		return key.tunnel_id == settings.tunnel_vni &&
		       bpf_map_lookup_elem(&outgate_node_v4, &source);
	}
#if OUTGATE_FAMILY == 6
	if (!bpf_skb_get_tunnel_key(context->skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6)) {
		__builtin_memcpy(node, key.remote_ipv6, sizeof(*node));
		return key.tunnel_id == settings.tunnel_vni &&
		       bpf_map_lookup_elem(&outgate_node_v6, node);
	}
#endif
	return 0;
}

#endif
