/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Incremental Internet checksums (RFC 1624, equation 3). PURE: no map, no helper; also
 * compiled for the host by the unit tests.
 */
#ifndef OUTGATE_CSUM_H
#define OUTGATE_CSUM_H

#include <linux/types.h>

static inline __attribute__((always_inline)) __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* HC' = ~(~HC + ~m + m'); every value as it lies in memory, so byte order plays no part. */
static inline __attribute__((always_inline)) __u16 csum_replace2(__u16 check, __u16 from,
								 __u16 to)
{
	return ~csum_fold((__u16)~check + (__u16)~from + (__u32)to);
}

static inline __attribute__((always_inline)) __u16 csum_replace4(__u16 check, __u32 from,
								 __u32 to)
{
	__u32 sum = (__u16)~check;

	sum += (__u16)~(from >> 16);
	sum += (__u16)~(from & 0xffff);
	sum += to >> 16;
	sum += to & 0xffff;
	return ~csum_fold(sum);
}

#endif
