/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the control plane says of an address or of a pair of addresses. */
#ifndef OUTGATE_CLASSIFY_H
#define OUTGATE_CLASSIFY_H

#include "maps.h"
#include "parse.h"
#include "verdict.h"

static __always_inline const struct endpoint *endpoint_lookup(__be32 address)
{
	struct endpoint_key key = { .address = address, .family = FAMILY_IPV4 };

	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

static __always_inline _Bool is_host_address(__be32 address)
{
	const struct endpoint *endpoint = endpoint_lookup(address);

	return endpoint && (endpoint->flags & ENDPOINT_HOST);
}

static __always_inline _Bool is_pod_address(__be32 address)
{
	const struct endpoint *endpoint = endpoint_lookup(address);

	return endpoint && (endpoint->flags & ENDPOINT_POD);
}

static __always_inline const struct ipcache_value *ipcache_lookup(__be32 address)
{
	struct ipcache_key key = {
		.prefix_len = 64, .family = FAMILY_IPV4, .address = address,
	};

	return bpf_map_lookup_elem(&cilium_ipcache, &key);
}

/*
 * 127/8, 169.254/16, 224/4 and broadcast: they stay on the host or the link, and nobody's
 * policy means them. The kernel routes the rest, 0/8 and 240/4 too.
 */
static __always_inline _Bool is_never_gatewayed(__be32 address)
{
	__u32 host = bpf_ntohl(address);

	return host >> 24 == 127 || host >> 16 == 0xa9fe || host >> 28 == 0xe ||
	       host == 0xffffffff;
}

/*
 * Part of the cluster, or not routable: never enters the gateway. With an ipcache that is
 * still empty everything counts as world, which drops rather than leaks.
 */
static __always_inline _Bool is_cluster_destination(__be32 address)
{
	const struct ipcache_value *entry;

	if (is_never_gatewayed(address))
		return 1;
	entry = ipcache_lookup(address);
	return entry && entry->identity != IDENTITY_WORLD;
}

/* Do two addresses belong to one node? Its tunnel may use another one than its rows. */
static __always_inline _Bool is_same_node(__be32 one, __be32 other)
{
	const struct ipcache_value *first, *second;

	if (one == other)
		return 1;
	first = ipcache_lookup(one);
	second = ipcache_lookup(other);
	return first && second && first->identity == IDENTITY_REMOTE_NODE &&
	       second->identity == IDENTITY_REMOTE_NODE && first->tunnel_endpoint &&
	       first->tunnel_endpoint == second->tunnel_endpoint;
}

/* Is @address one of the pods of the node that tunnels as @node? */
static __always_inline _Bool is_pod_of_node(__be32 address, __be32 node)
{
	const struct ipcache_value *pod = ipcache_lookup(address);

	return pod && pod->identity == IDENTITY_CLUSTER && pod->tunnel_endpoint &&
	       is_same_node(pod->tunnel_endpoint, node);
}

/* The row of (source, destination), or NULL where no policy covers the pair. */
static __always_inline const struct egress_value *policy_lookup(__be32 source, __be32 destination)
{
	struct egress_key key = {
		.prefix_len = 64, .source = source, .destination = destination,
	};

	return bpf_map_lookup_elem(&cilium_egress_v4, &key);
}

/* As policy_lookup(), and NULL also for excluded networks and cluster destinations. */
static __always_inline const struct egress_value *covering_row(const struct tuple4 *tuple)
{
	const struct egress_value *row = policy_lookup(tuple->source, tuple->destination);

	if (!row || row->kind == POLICY_EXCLUDED || is_cluster_destination(tuple->destination))
		return 0;
	return row;
}

/*
 * A pod network's address that no endpoint entry knows, talking to a network that some
 * policy covers: a pod so new that its rows may be missing. Return the policy, or 0.
 */
static __always_inline __u32 unknown_pod_policy(const struct tuple4 *tuple, _Bool local_only)
{
	struct network_key key = { .prefix_len = 32, .address = tuple->destination };
	const struct ipcache_value *source = ipcache_lookup(tuple->source);
	const struct covered_value *covered;

	if (!source || source->identity != IDENTITY_CLUSTER)
		return 0;
	if (local_only && source->tunnel_endpoint)
		return 0;
	covered = bpf_map_lookup_elem(&outgate_covered_v4, &key);
	if (!covered || is_cluster_destination(tuple->destination))
		return 0;
	return covered->policy;
}

/* Why a covered packet without a whole tuple must die. */
static __always_inline int unsupported(enum packet_class class)
{
	switch (class) {
	case PACKET_BROKEN:
		return DROP_INVALID;
	case PACKET_FRAGMENT:
		return DROP_FRAGMENT;
	case PACKET_ICMP:
		return DROP_UNSUPPORTED_ICMP;
	case PACKET_ICMP_ERROR:
		return DROP_ICMP_NO_FLOW;
	default:
		return DROP_UNSUPPORTED_PROTOCOL;
	}
}

#endif
