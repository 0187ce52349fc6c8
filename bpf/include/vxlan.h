/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * VXLAN's headers (RFC 7348, section 5), as the kernel's device writes them.
 * PURE: no map, no helper.
 */
#ifndef OUTGATE_VXLAN_H
#define OUTGATE_VXLAN_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

#define VXLAN_VNI_IS_VALID bpf_htonl(0x08000000)

/* Linux' default range of UDP source ports, by which networks tell flows apart. */
#define OUTER_PORT_FIRST 32768
#define OUTER_PORT_LAST 60999

#define ECN_MASK 3
#define ECN_ECT_0 2
#define ECN_CE 3

struct vxlan_header {
	__be32 flags;
	__be32 vni; /* << 8 */
};

/* What follows the outer IP header, up to the inner one. */
struct outer_tail {
	struct udphdr udp;
	struct vxlan_header vxlan;
	struct ethhdr inner;
} __attribute__((packed, aligned(2)));

struct outer_v4 {
	struct iphdr ip;
	struct outer_tail tail;
} __attribute__((packed, aligned(2)));

struct outer_v6 {
	struct ipv6hdr ip;
	struct outer_tail tail;
} __attribute__((packed, aligned(2)));

/* Sum of @count 16-bit words, not folded yet; every value as it lies in memory. */
static inline __attribute__((always_inline)) __u64 words_sum(const void *start, int count)
{
	const __u16 *word = start;
	__u64 sum = 0;

	for (int i = 0; i < count; i++)
		sum += word[i];
	return sum;
}

/* Return the 16-bit one's complement sum. */
static inline __attribute__((always_inline)) __u16 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

#endif
