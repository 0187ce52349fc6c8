/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Fragments in any order. A part that comes before the first of its datagram is held, as
 * bytes in a map; the first sends it in again behind itself, and then it is a part like any
 * other.
 */
#ifndef OUTGATE_FRAGMENT_HOLD_H
#define OUTGATE_FRAGMENT_HOLD_H

#include "fragment.h"

/* Parts of one datagram that are held, and the largest frame that is. */
#define HELD_PARTS 16
#define HELD_BYTES 2036

struct held_key {
	struct fragment_key datagram;
	__u32 part;
};

struct held {
	__u64 since; /* jiffies */
	__u32 size;
	__u8 frame[HELD_BYTES];
};

/* Not pinned: each program sends in again only what came in by its own hook. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, sizeof(struct held_key));
	__uint(value_size, sizeof(struct held));
	__uint(max_entries, 512);
} held_parts SEC(".maps");

/* A part on its way between a packet and the map: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct held));
	__uint(max_entries, 1);
} held_copies SEC(".maps");

static __always_inline struct held *held_copy(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&held_copies, &zero);
}

/* Put a part that came too early into the map. Return 0, or -1 where there is no room. */
static __always_inline int fragment_store(struct context *context, struct held_key *key)
{
	__u32 size = context_size(context);
	struct held *copy = held_copy();

	if (!copy || size < ETH_HLEN || size > HELD_BYTES)
		return -1;
	if (context_read(context, 0, copy->frame, size))
		return -1;
	copy->size = size;
	copy->since = bpf_jiffies64();
	for (key->part = 0; key->part < HELD_PARTS; key->part++)
		if (!bpf_map_update_elem(&held_parts, key, copy, BPF_NOEXIST))
			return 0;
	return -1;
}

/**
 * fragment_hold - keep a later part until the first one comes
 * @packet: of class PACKET_FRAGMENT, as fragment_resolve() left it
 *
 * Not inlined, to have a stack of its own.
 * Return: 0; 1 where the first came this very moment, and the packet is to be resolved
 *         again; -1 where there is no room.
 */
static __noinline int fragment_hold(struct context *context)
{
	struct held_key key = { .datagram = context->work->datagram };
	struct fragment_value awaited = { .is_awaited = 1, .last_seen = bpf_jiffies64() };
	struct fragment_value *value;

	if (fragment_store(context, &key))
		return -1;
	if (!bpf_map_update_elem(&FAMILY(outgate_frag), &key.datagram, &awaited, BPF_NOEXIST))
		return 0;
	value = bpf_map_lookup_elem(&FAMILY(outgate_frag), &key.datagram);
	if (!value)
		return -1;
	if (!is_current(value, awaited.last_seen))
		/* Of a former datagram with this id. */
		*value = awaited;
	*(volatile __u8 *)&value->is_awaited = 1;
	if (*(volatile __u8 *)&value->state == FRAGMENT_UNKNOWN)
		return 0;
	/* Take it back, unless the first part's program has. */
	return bpf_map_delete_elem(&held_parts, &key) ? 0 : 1;
}

/**
 * fragment_release - send in again a datagram's first part, and behind it those that waited
 *
 * Each as a copy of this packet, which holds one after the other of them. Not inlined, to
 * have a stack of its own. Packet pointers are invalid afterwards.
 * Return: the verdict of a redirect, or 0 where nothing waited and the packet is as it was.
 */
static __noinline int fragment_release(struct context *context)
{
	struct held_key key = { .datagram = context->work->datagram };
	struct __sk_buff *skb = context->skb;
	__u64 now = bpf_jiffies64();
	int verdict = 0;

	for (key.part = 0; key.part < HELD_PARTS; key.part++) {
		struct held *held = bpf_map_lookup_elem(&held_parts, &key);
		__u32 size = held ? held->size : 0;

		if (size < ETH_HLEN || size > HELD_BYTES)
			continue;
		if (now - held->since <= (__u64)LIFETIME_FRAGMENT * settings.jiffies_per_second) {
			/* What the packet holds now; the last one goes by the verdict. */
			bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
			if (bpf_skb_change_tail(skb, size, 0) ||
			    bpf_skb_store_bytes(skb, 0, held->frame, size, BPF_F_RECOMPUTE_CSUM))
				return VERDICT_DROP;
			verdict = bpf_redirect(skb->ifindex, BPF_F_INGRESS);
		}
		bpf_map_delete_elem(&held_parts, &key);
	}
	return verdict;
}

/**
 * fragment_learn - remember the ports of a datagram's first part
 * Return: a verdict where parts waited for it, and all come in once more; or 0.
 */
static __always_inline int fragment_learn(struct context *context, const struct packet *packet,
					  __u8 state)
{
	int verdict;

	if (packet->fragment != FRAGMENT_FIRST ||
	    !fragment_note(context, &packet->tuple, packet->id, state))
		return 0;
	verdict = fragment_release(context);
	/* What waited may be too old by now, or pushed out: then the packet goes on by itself. */
	context->is_released = verdict != 0;
	return verdict;
}

#endif
