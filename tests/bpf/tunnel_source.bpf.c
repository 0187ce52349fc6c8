// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Makes a test packet look as if the tunnel device had received it, then runs the program
 * under test: BPF_PROG_TEST_RUN has no way to give a packet tunnel metadata.
 * cb[0]: the tunnel's source address, host order; cb[1]: the VNI.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} program_under_test SEC(".maps");

SEC("tc")
int tunnel_source(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {
		.local_ipv4 = skb->cb[0], .tunnel_id = skb->cb[1], .tunnel_ttl = 64,
	};

	bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0);
	bpf_tail_call(skb, &program_under_test, 0);
	return -100; /* the tail call failed */
}

char _license[] SEC("license") = "GPL";
