/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the control plane says of an address or of a pair of addresses. */
#ifndef OUTGATE_CLASSIFY_H
#define OUTGATE_CLASSIFY_H

#include "address.h"
#include "config.h"
#include "maps.h"
#include "parse.h"
#include "verdict.h"

static __always_inline struct endpoint *endpoint_lookup(const struct ip_address *address)
{
	struct endpoint_key key = {};

	key.family = address_to_any(address, &key.address);
	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

static __always_inline _Bool is_host_address(const struct ip_address *address)
{
	const struct endpoint *endpoint = endpoint_lookup(address);

	return endpoint && (endpoint->flags & ENDPOINT_HOST);
}

static __always_inline _Bool is_pod_address(const struct ip_address *address)
{
	const struct endpoint *endpoint = endpoint_lookup(address);

	return endpoint && (endpoint->flags & ENDPOINT_POD);
}

/*
 * Do a pod's packets come from @ifindex? Its first one says where they come from, for as long
 * as the address has this owner: a pod that takes the address of another, or gets it before
 * the control plane has heard of that, is behind another interface.
 */
static __always_inline _Bool is_interface_of(struct endpoint *pod, __u32 ifindex)
{
	__u32 known = pod->ifindex;

	if (!known)
		known = __sync_val_compare_and_swap(&pod->ifindex, 0, ifindex);
	return !known || known == ifindex;
}

static __always_inline const struct ipcache_value *
ipcache_lookup(const struct ip_address *address)
{
	struct ipcache_key key = {};

	key.family = address_to_any(address, &key.address);
	key.prefix_len = 32 + (key.family == FAMILY_IPV4 ? 32 : 128);
	return bpf_map_lookup_elem(&cilium_ipcache, &key);
}

/* The node that holds an entry's network; none: this one, or none known. */
static __always_inline struct ip_address ipcache_endpoint(const struct ipcache_value *entry)
{
	return address_of_any(&entry->tunnel_endpoint,
			      entry->flags & IPCACHE_ENDPOINT_IPV6 ? FAMILY_IPV6 : FAMILY_IPV4);
}

/*
 * Part of the cluster, or not routable: never enters the gateway. With an ipcache that is
 * still empty everything counts as world, which drops rather than leaks.
 */
static __always_inline _Bool is_cluster_destination(const struct ip_address *address)
{
	const struct ipcache_value *entry;

	if (is_never_gatewayed(address))
		return 1;
	entry = ipcache_lookup(address);
	return entry && entry->identity != IDENTITY_WORLD;
}

/* Do two addresses belong to one node? Its tunnel may use another one than its rows. */
static __always_inline _Bool is_same_node(const struct ip_address *one,
					  const struct ip_address *other)
{
	const struct ipcache_value *first, *second;
	struct ip_address first_endpoint, second_endpoint;

	if (address_equal(one, other))
		return 1;
	first = ipcache_lookup(one);
	second = ipcache_lookup(other);
	if (!first || !second || first->identity != IDENTITY_REMOTE_NODE ||
	    second->identity != IDENTITY_REMOTE_NODE)
		return 0;
	first_endpoint = ipcache_endpoint(first);
	second_endpoint = ipcache_endpoint(second);
	return !address_is_none(&first_endpoint) &&
	       address_equal(&first_endpoint, &second_endpoint);
}

/* Is @address one of a node: of this one, or one whose tunnelled packets are believed? */
static __always_inline _Bool is_node_address(const struct ip_address *address)
{
	const struct ipcache_value *entry = ipcache_lookup(address);

	return (entry && (entry->identity == IDENTITY_HOST ||
			  entry->identity == IDENTITY_REMOTE_NODE)) ||
	       is_host_address(address);
}

/*
 * Does a pod send this to where tunnelled packets are received? Where the network plugin
 * masquerades what pods send to nodes, it would come from an address that is believed. What
 * lies behind more extension headers than are walked may be such a packet too.
 */
static __always_inline _Bool is_to_tunnel(const struct tuple *tuple)
{
	if (!settings.tunnel_port)
		return 0;
	if ((tuple->protocol != IPPROTO_UDP ||
	     tuple->destination_port != bpf_htons(settings.tunnel_port)) &&
	    !is_extension(tuple->protocol))
		return 0;
	return is_node_address(&tuple->destination);
}

/* Is @address one of the pods of the node that tunnels as @node? */
static __always_inline _Bool is_pod_of_node(const struct ip_address *address,
					    const struct ip_address *node)
{
	const struct ipcache_value *pod = ipcache_lookup(address);
	struct ip_address endpoint;

	if (!pod || pod->identity != IDENTITY_CLUSTER)
		return 0;
	endpoint = ipcache_endpoint(pod);
	return !address_is_none(&endpoint) && is_same_node(&endpoint, node);
}

/* The set of rows that @source has; 0 where none is known. */
static __always_inline __u32 set_lookup(const struct ip_address *source)
{
	const struct source_value *found = bpf_map_lookup_elem(&FAMILY(outgate_source), source);
	__u32 set;

	if (!found)
		return 0;
	set = *(const volatile __u32 *)&found->set;
	barrier();
	/* Removed meanwhile, and given to another address: whose it is was written first. */
	return address_equal(&found->address, source) ? set : 0;
}

/* As policy_lookup(), by the rows of single pods. */
static __always_inline const struct egress_value *row_lookup(const struct tuple *tuple)
{
	struct egress_key key = {
		.prefix_len = 2 * ADDRESS_BITS,
		.source = tuple->source,
		.destination = tuple->destination,
	};

	return bpf_map_lookup_elem(&FAMILY(cilium_egress), &key);
}

/*
 * The row of (source, destination), or NULL where no policy covers the pair.
 *
 * By the source's set: a trie of all pods' rows is slow when they are many. A set never
 * changes. It is whole before a source has it, and goes after the last one has another: so
 * what it has is right, and what it lacks is right while the source has it still. Otherwise,
 * and without a set, the rows of the pod itself decide, which are always there.
 */
static __always_inline const struct egress_value *policy_lookup(const struct tuple *tuple)
{
	const struct egress_value *row;
	struct set_key key = {
		.prefix_len = 32 + ADDRESS_BITS,
		.set = set_lookup(&tuple->source),
		.destination = tuple->destination,
	};

	if (!key.set)
		return row_lookup(tuple);
	row = bpf_map_lookup_elem(&FAMILY(outgate_set), &key);
	if (row || set_lookup(&tuple->source) == key.set)
		return row;
	return row_lookup(tuple);
}

/* As policy_lookup(), and NULL also for excluded networks and cluster destinations. */
static __always_inline const struct egress_value *covering_row(const struct tuple *tuple)
{
	const struct egress_value *row = policy_lookup(tuple);

	if (!row || row->kind == POLICY_EXCLUDED || is_cluster_destination(&tuple->destination))
		return 0;
	return row;
}

/*
 * A pod network's address that no endpoint entry knows, talking to a network that some
 * policy covers: a pod so new that its rows may be missing. Return the policy, or 0.
 */
static __always_inline __u32 unknown_pod_policy(const struct tuple *tuple, _Bool local_only)
{
	struct network_key key = { .prefix_len = ADDRESS_BITS, .address = tuple->destination };
	const struct ipcache_value *source = ipcache_lookup(&tuple->source);
	const struct covered_value *covered;
	struct ip_address endpoint;

	if (!source || source->identity != IDENTITY_CLUSTER)
		return 0;
	endpoint = ipcache_endpoint(source);
	if (local_only && !address_is_none(&endpoint))
		return 0;
	covered = bpf_map_lookup_elem(&FAMILY(outgate_covered), &key);
	if (!covered || is_cluster_destination(&tuple->destination))
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
