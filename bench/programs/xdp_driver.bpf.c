// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What driver.bpf.c is for tc: stands before an XDP program that is measured. That one may
 * take a header off or put one on; the next packet has its size again before it is written.
 */
#include "plan.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} measured SEC(".maps");

SEC("xdp.frags")
int xdp_driver(struct xdp_md *context)
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
	/* Also where nothing has to be moved: this call is no part of the figure. */
	if (bpf_xdp_adjust_head(context, (int)bpf_xdp_get_buff_len(context) - (int)size) ||
	    bpf_xdp_store_bytes(context, 0, plan->frame, size))
		return XDP_ABORTED;
	bpf_tail_call(context, &measured, 0);
	return XDP_ABORTED; /* no program is there */
}

SEC("xdp.frags")
int xdp_empty(struct xdp_md *context)
{
	(void)context;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
