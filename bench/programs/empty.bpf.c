// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The program that does nothing: what others cost is told net of it, and in units of it. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int empty(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
