// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * collect: drops the entries of flows that are over, by a timer of the kernel.
 *
 * Attached nowhere: the agent runs it once, which starts the timer; from then on the kernel
 * calls, with or without an agent, as long as the map of the timer is pinned. Items are taken
 * from the queue's head, a bounded number at once, so that packets never wait for long.
 */
#include "include/event.h"
#include "include/flow.h"
#include "include/garbage.h"
#include "include/pair.h"
#include "include/port_hints.h"

/* A tick is short, because packets of this CPU wait for it; the next one soon, if more is due. */
#define ITEMS_PER_TICK 256
#define TICK_NANOSECONDS (20 * 1000 * 1000)
#define HURRIED_TICK_NANOSECONDS (5 * 1000 * 1000)

struct collector {
	struct bpf_timer timer;
	__u64 ticks;
	__u64 checked; /* flows looked at */
	__u64 released; /* flows dropped */
	__u64 nanoseconds; /* all of that took so long */
};

/* By type, unlike the other maps: the kernel must know where in it a timer lies. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct collector);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_collector) SEC(".maps");

struct round {
	struct work *work;
	struct collector *collector;
	__u64 now;
};

static __always_inline _Bool is_flow_over(struct round *round, const struct garbage_item *item)
{
	struct flow_entry *flow = bpf_map_lookup_elem(&FAMILY(outgate_flow), &item->tuple);

	if (!flow)
		return 1;
	if (is_live(flow->last_seen, item->tuple.protocol, flow->tcp, round->now))
		return 0;
	event_flow(round->work, EVENT_FLOW_CLOSED, &item->tuple, flow);
	bpf_map_delete_elem(&FAMILY(outgate_flow), &item->tuple);
	round->collector->released += 1;
	return 1;
}

/* Both halves die together: while one of them lives, the other stays or comes back. */
static __always_inline _Bool is_nat_over(struct round *round, struct garbage_item *item)
{
	struct work *work = round->work;
	struct nat_entry *forward, *reverse, *known = &work->translation;
	__u32 policy = 0;

	work->key = forward_key(&item->tuple);
	forward = bpf_map_lookup_elem(&FAMILY(outgate_snat), &work->key);
	if (forward && nat_read(known, forward, &work->key)) {
		nat_remove_broken(forward, &work->key);
		forward = 0;
	}
	if (forward) {
		/* Kept in the item: the flow may have been decided anew, or lose this half. */
		item->egress_ip = known->address;
		item->port = known->port;
		policy = known->policy;
		if (is_live(known->last_seen, item->tuple.protocol, known->tcp, round->now))
			return 0;
	}
	work->reply = reverse_key(&item->tuple, &item->egress_ip, item->port);
	reverse = nat_lookup(&work->reply);
	if (reverse && !(reverse->flags & NAT_HOST_SOCKET) &&
	    !leads_to(reverse, &item->tuple.source, item->tuple.source_port))
		/* Another flow's by now. */
		reverse = 0;
	if (reverse &&
	    is_live(reverse->last_seen, item->tuple.protocol, reverse->tcp, round->now))
		return 0;
	if (!forward && !reverse)
		return 1;
	if (!reverse || !(reverse->flags & NAT_HOST_SOCKET))
		event_nat(work, EVENT_NAT_RELEASED, &item->tuple, &item->egress_ip, item->port,
			  reverse ? reverse->policy : policy);
	if (forward)
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->key);
	if (reverse) {
		bpf_map_delete_elem(&FAMILY(outgate_snat), &work->reply);
		port_released(work, &work->reply);
	}
	round->collector->released += 1;
	return 1;
}

/* A callback of bpf_loop(). Return 1 to end the round: nothing (more) is due. */
static long collect_item(__u64 step, struct round *round)
{
	struct garbage_item *item = &round->work->garbage;

	(void)step;
	if (bpf_map_peek_elem(&FAMILY(outgate_garbage), item) ||
	    (__s64)(item->due - round->now) > 0)
		return 1;
	if (bpf_map_pop_elem(&FAMILY(outgate_garbage), item))
		return 1;
	round->collector->checked += 1;
	if (item->kind == GARBAGE_FLOW ? is_flow_over(round, item) : is_nat_over(round, item))
		return 0;
	garbage_push(item);
	return 0;
}

static int collect_tick(void *map, __u32 *key, struct collector *collector)
{
	struct round round = { .collector = collector, .now = bpf_jiffies64() };
	__u64 begun = bpf_ktime_get_ns();
	long steps = 0;

	(void)map;
	(void)key;
	round.work = work_begin();
	if (round.work)
		steps = bpf_loop(ITEMS_PER_TICK, collect_item, &round, 0);
	collector->ticks += 1;
	collector->nanoseconds += bpf_ktime_get_ns() - begun;
	bpf_timer_start(&collector->timer,
			steps < ITEMS_PER_TICK ? TICK_NANOSECONDS : HURRIED_TICK_NANOSECONDS, 0);
	return 0;
}

/* Return 0, or a negative errno: there is no timer then. */
SEC("tc")
int FAMILY(collect)(struct __sk_buff *skb)
{
	struct collector *collector;
	__u32 zero = 0;
	long error;

	(void)skb;
	collector = bpf_map_lookup_elem(&FAMILY(outgate_collector), &zero);
	if (!collector)
		return -1;
	error = bpf_timer_init(&collector->timer, &FAMILY(outgate_collector),
			       1 /* CLOCK_MONOTONIC */);
	if (error && error != -16 /* EBUSY: a former version's, whose callback we replace */)
		return error;
	error = bpf_timer_set_callback(&collector->timer, collect_tick);
	return error ? error : bpf_timer_start(&collector->timer, TICK_NANOSECONDS, 0);
}

char _license[] SEC("license") = "GPL";
