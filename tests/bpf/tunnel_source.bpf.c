// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Makes a test packet look as if the tunnel device had received it, then runs the program
 * under test: BPF_PROG_TEST_RUN has no way to give a packet tunnel metadata.
 * cb[4]: the VNI, with OUTER_IS_IPV6 or without; cb[0..3]: the tunnel's source address, in
 * network order where it is of IPv6, else in cb[0] and in host order.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define OUTER_IS_IPV6 (1U << 31)

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
		.tunnel_id = skb->cb[4] & ~OUTER_IS_IPV6, .tunnel_ttl = 64,
	};

	if (skb->cb[4] & OUTER_IS_IPV6) {
		key.local_ipv6[0] = skb->cb[0];
		key.local_ipv6[1] = skb->cb[1];
		key.local_ipv6[2] = skb->cb[2];
		key.local_ipv6[3] = skb->cb[3];
		bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6);
	} else {
		key.local_ipv4 = skb->cb[0];
		bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0);
	}
	bpf_tail_call(skb, &program_under_test, 0);
	return -100; /* the tail call failed */
}

char _license[] SEC("license") = "GPL";
