/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Addresses of which the control plane says that no policy row was ever written for them, and
 * that no flow is known of them: whatever is asked about them, the answer is no.
 *
 * It takes that back before it writes a row (src/outgate/kernel/free.py). Without it, and where
 * addresses share a bit, the maps are asked: that is always right.
 */
#ifndef OUTGATE_FREE_H
#define OUTGATE_FREE_H

#include <bpf/bpf_endian.h>

#include "maps.h"

/* 2^32 divided by the golden ratio. */
#define FREE_FACTOR 0x9e3779b1

#define FREE_WORD_BITS 64

static __always_inline _Bool is_free_address(const struct ip_address *address)
{
	const struct free_value *value;
	__u32 bit, word, hash = 0;
	int i;

#pragma unroll
	for (i = 0; i < ADDRESS_WORDS; i++)
		hash = (hash ^ bpf_ntohl(address->word[i])) * FREE_FACTOR;
	bit = hash >> FREE_SHIFT;
	word = bit / FREE_WORD_BITS;
	value = bpf_map_lookup_elem(&outgate_free, &word);
	return value && (value->bits >> bit % FREE_WORD_BITS & 1);
}

#endif
