/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Finding the MSS among TCP options (RFC 9293, 3.1). PURE: no map, no helper; also
 * compiled for the host by the unit tests.
 */
#ifndef OUTGATE_MSS_OPTION_H
#define OUTGATE_MSS_OPTION_H

#include <linux/types.h>

#define TCP_OPTIONS_SIZE 40 /* a header has at most 60 bytes, 20 are fixed */
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define MSS_OPTION_SIZE 4

/**
 * mss_find - find the value of the MSS option
 * @options: TCP_OPTIONS_SIZE bytes, of which the first @size are the packet's
 *
 * One step a byte, not one an option: unrolled, each step reads at a place that the
 * verifier knows, and paths meet again.
 * Return: the offset of its two bytes, or 0 when there is none, or only a part of one.
 */
static inline __attribute__((always_inline)) __u32 mss_find(const __u8 *options, __u32 size)
{
	__u32 next = 0;

#pragma GCC unroll 40
	for (__u32 at = 0; at + MSS_OPTION_SIZE <= TCP_OPTIONS_SIZE; at++) {
		__u8 kind = options[at], length = options[at + 1];

		if (at != next)
			continue;
		if (kind == TCP_OPTION_END || at + MSS_OPTION_SIZE > size)
			return 0;
		if (kind == TCP_OPTION_MSS)
			return length == MSS_OPTION_SIZE ? at + 2 : 0;
		if (kind == TCP_OPTION_NOP)
			length = 1;
		else if (length < 2)
			return 0;
		next = at + length;
	}
	return 0;
}

#endif
