/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * One packet written as many flows. Flow i has source (or destination) port
 * PORT_FIRST + i % PORTS, and beyond that many another server; its pod is one of so many.
 * Flows come in an order in which neighbours are far from each other.
 */
#ifndef BENCH_PLAN_H
#define BENCH_PLAN_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME_SIZE 256 /* a power of two */
#define PORT_FIRST 16384
#define PORTS 32768

/* struct Plan in bench/driver.py. */
struct plan {
	__u32 flows; /* how many there are to choose from */
	__u32 step; /* from one packet's flow to the next one's */
	__u32 first; /* the number of the first flow */
	__u32 next; /* moved on with each packet */
	__u32 pods; /* 0: the frame has no pod's address */
	__u16 pod_first; /* last two bytes of the first pod's address */
	__u16 server_first; /* likewise */
	__u32 port_at; /* where these lie in the frame */
	__u32 pod_at;
	__u32 server_at;
	__u32 size; /* of the frame */
	__u32 sum_at; /* or 0: a word of payload that keeps the L4 checksum right */
	__u32 outer_at; /* or 0: the outer source port, another one for each flow */
	__u32 ifindex; /* of a generator: where packets leave */
	__u32 mark;
	__u32 outer; /* 0, or 4 or 6: it seems to have come out of a tunnel */
	__u32 vni;
	__u32 node[4]; /* from there; IPv4 in host order */
	__u8 frame[FRAME_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct plan));
	__uint(max_entries, 1);
} plans SEC(".maps");

static __always_inline void write_word(struct plan *plan, __u32 at, __u32 value)
{
	/* Verifier: the offset must be bounded. */
	at &= FRAME_SIZE - 2;
	*(__be16 *)(plan->frame + at) = bpf_htons(value);
}

static __always_inline void write_flow(struct plan *plan)
{
	__u32 flow, next = plan->next + plan->step;

	if (next >= plan->flows)
		next -= plan->flows;
	plan->next = next;
	flow = plan->first + next;
	write_word(plan, plan->port_at, PORT_FIRST + flow % PORTS);
	write_word(plan, plan->server_at, plan->server_first + flow / PORTS);
	if (plan->pods)
		write_word(plan, plan->pod_at, plan->pod_first + flow % plan->pods);
	if (plan->sum_at)
		write_word(plan, plan->sum_at, ~(flow % PORTS));
	if (plan->outer_at)
		write_word(plan, plan->outer_at, PORT_FIRST + flow % PORTS);
}

#endif
