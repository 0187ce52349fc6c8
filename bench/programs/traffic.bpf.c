// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Where packets of a whole path begin and end. The generator is run on live frames
 * (BPF_F_TEST_XDP_LIVE_FRAMES); the sink is attached where packets arrive.
 */
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include "plan.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
	__uint(max_entries, 1);
} arrived SEC(".maps");

SEC("xdp")
int generate(struct xdp_md *context)
{
	__u32 zero = 0;
	struct plan *plan = bpf_map_lookup_elem(&plans, &zero);
	__u32 size;

	if (!plan)
		return XDP_ABORTED;
	write_flow(plan);
	size = plan->size;
	if (size > FRAME_SIZE || size < 1)
		return XDP_ABORTED;
	if (bpf_xdp_store_bytes(context, 0, plan->frame, size))
		return XDP_ABORTED;
	return bpf_redirect(plan->ifindex, 0);
}

static __always_inline void count_arrived(void)
{
	__u32 zero = 0;
	__u64 *packets = bpf_map_lookup_elem(&arrived, &zero);

	if (packets)
		*packets += 1;
}

SEC("tc")
int sink(struct __sk_buff *skb)
{
	if (skb->protocol != bpf_htons(ETH_P_IP))
		/* Neighbours find each other. */
		return TC_ACT_UNSPEC;
	count_arrived();
	return TC_ACT_SHOT;
}

SEC("xdp")
int xdp_sink(struct xdp_md *context)
{
	const struct ethhdr *eth = (const void *)(long)context->data;

	if ((const void *)(eth + 1) > (const void *)(long)context->data_end ||
	    eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	count_arrived();
	return XDP_DROP;
}

char _license[] SEC("license") = "GPL";
