/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The two entries of a translated flow: their keys, how one tells of the other, and how each
 * tells whose it is.
 */
#ifndef OUTGATE_PAIR_H
#define OUTGATE_PAIR_H

#include "address.h"
#include "maps.h"
#include "parse.h"
#include "seal.h"
#include "verdict.h"
#include "work.h"

static __always_inline struct tuple forward_key(const struct tuple *tuple)
{
	struct tuple key = *tuple;

	key.direction = NAT_FORWARD;
	return key;
}

/* The tuple of a reply to @tuple once it is translated to @egress_ip and @port. */
static __always_inline struct tuple reverse_key(const struct tuple *tuple,
						const struct ip_address *egress_ip, __be16 port)
{
	struct tuple key = tuple_reverse(tuple);

	key.destination = *egress_ip;
	key.destination_port = port;
	key.direction = NAT_REVERSE;
	return key;
}

/* Fill @entry as the reverse half of a flow from @tuple's source. */
static __always_inline void nat_reverse_entry(struct nat_entry *entry, const struct tuple *tuple,
					      const struct origin *origin, __u32 policy, __u8 tcp,
					      __u64 now)
{
	__builtin_memset(entry, 0, sizeof(*entry));
	entry->address = tuple->source;
	entry->port = tuple->source_port;
	entry->tcp = tcp;
	entry->tunnel_endpoint = origin->tunnel_endpoint;
	entry->policy = policy;
	entry->ifindex = origin->ifindex;
	entry->last_seen = now;
	__builtin_memcpy(entry->to_mac, origin->pod_mac, ETH_ADDRESS_SIZE);
	__builtin_memcpy(entry->from_mac, origin->host_mac, ETH_ADDRESS_SIZE);
}

static __always_inline void nat_seal(struct nat_entry *entry, const struct tuple *key)
{
	entry->seal = seal_of(key, &entry->address, entry->port);
}

static __always_inline _Bool is_sealed(const struct nat_entry *entry, const struct tuple *key)
{
	return entry->seal == seal_of(key, &entry->address, entry->port);
}

/*
 * Remove an entry whose seal is broken, if it is @key's and not only was when it was found. A
 * reverse half only where its flow puts it back at once: without it the host would answer.
 */
static __always_inline void nat_remove_broken(const struct nat_entry *found,
					      const struct tuple *key)
{
	if (bpf_map_lookup_elem(&FAMILY(outgate_snat), key) == found)
		bpf_map_delete_elem(&FAMILY(outgate_snat), key);
}

/**
 * nat_read - copy the entry that a lookup of @key found
 *
 * A full LRU map gives an entry's memory to another flow at once, also while a program reads
 * it, or writes there. Then the seal of what is read is broken.
 *
 * Return: 0, or -DROP_WRONG_ENTRY.
 */
static __always_inline int nat_read(struct nat_entry *copy, const struct nat_entry *found,
				    const struct tuple *key)
{
	*copy = *found;
	barrier();
	return is_sealed(copy, key) ? 0 : -DROP_WRONG_ENTRY;
}

/* Find the entry of @key, to compare or to write it; one whose seal is broken is none. */
static __always_inline struct nat_entry *nat_lookup(const struct tuple *key)
{
	struct nat_entry *found = bpf_map_lookup_elem(&FAMILY(outgate_snat), key);

	if (!found || is_sealed(found, key))
		return found;
	nat_remove_broken(found, key);
	return 0;
}

/* Does this half translate to this address and port? A host socket's has neither. */
static __always_inline _Bool leads_to(const struct nat_entry *half,
				      const struct ip_address *address, __be16 port)
{
	return half->port == port && address_equal(&half->address, address);
}

#endif
