/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Garbage: entries of flows that are over. Each flow that opens puts an item into a queue;
 * collect.bpf.c takes items out again by a timer of the kernel, drops what is over and puts
 * back what lives. Packets pay for one push a flow, and for nothing else.
 */
#ifndef OUTGATE_GARBAGE_H
#define OUTGATE_GARBAGE_H

#include "config.h"
#include "maps.h"
#include "work.h"

/* Seconds between two looks at the same flow. */
#define COLLECT_SECONDS 10

/* With the queue full the oldest item is lost: its flow is left to the LRU map alone. */
static __always_inline void garbage_push(struct garbage_item *item)
{
	item->due = bpf_jiffies64() + COLLECT_SECONDS * settings.jiffies_per_second;
	bpf_map_push_elem(&FAMILY(outgate_garbage), item, BPF_EXIST);
}

/* A new entry of outgate_flow. */
static __always_inline void garbage_flow(struct work *work, const struct tuple *tuple)
{
	struct garbage_item *item = &work->garbage;

	__builtin_memset(item, 0, sizeof(*item));
	item->tuple = *tuple;
	item->kind = GARBAGE_FLOW;
	garbage_push(item);
}

/* A new pair in outgate_snat, or a host socket's entry alone; @tuple as its sender writes it. */
static __always_inline void garbage_nat(struct work *work, const struct tuple *tuple,
					const struct ip_address *egress_ip, __be16 port)
{
	struct garbage_item *item = &work->garbage;

	__builtin_memset(item, 0, sizeof(*item));
	item->tuple = *tuple;
	item->egress_ip = *egress_ip;
	item->port = port;
	item->kind = GARBAGE_NAT;
	garbage_push(item);
}

#endif
