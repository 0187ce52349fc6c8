// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Stands before a program that is measured by BPF_PROG_TEST_RUN, which repeats one packet:
 * each time it writes the packet anew, as one of many flows, and calls the program.
 * Checksums are left as they are: programs mend them, none reads them.
 */
#include "plan.h"

#define OUTER_IS_IPV6 6

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} measured SEC(".maps");

static __always_inline void set_tunnel(struct __sk_buff *skb, const struct plan *plan)
{
	struct bpf_tunnel_key key = { .tunnel_id = plan->vni, .tunnel_ttl = 64 };

	if (plan->outer == OUTER_IS_IPV6) {
		__builtin_memcpy(key.local_ipv6, plan->node, sizeof(key.local_ipv6));
		bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6);
	} else {
		key.local_ipv4 = plan->node[0];
		bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0);
	}
}

SEC("tc")
int driver(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct plan *plan = bpf_map_lookup_elem(&plans, &zero);
	__u32 size;

	if (!plan)
		return -100;
	write_flow(plan);
	size = plan->size;
	if (size > FRAME_SIZE || size < 1)
		return -100;
	bpf_skb_store_bytes(skb, 0, plan->frame, size, 0);
	skb->mark = plan->mark;
	if (plan->outer)
		set_tunnel(skb, plan);
	bpf_tail_call(skb, &measured, 0);
	return -100; /* no program is there */
}

char _license[] SEC("license") = "GPL";
