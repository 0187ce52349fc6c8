/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * By what a NAT entry tells whose it is. PURE: no map, no helper; also compiled for the host.
 */
#ifndef OUTGATE_SEAL_H
#define OUTGATE_SEAL_H

#include "types.h"

/* Random, and odd. */
static const __u64 seal_factors[] = {
	0x9362da5cc13da58bULL, 0xf6fadfa7e5c15b63ULL, 0x7e6ddce7a7ace733ULL, 0x2c63888f28f00481ULL,
	0x8f7b7676d015b0ddULL, 0x8a119b9e16bc1733ULL, 0x609e467ada679f81ULL, 0xbc67ba94637d6efbULL,
	0x0787c0de2f960063ULL, 0xfab36728a78beb7fULL, 0x19d5269512e74f7bULL, 0xa712755f6cace4d5ULL,
	0xba2dde83458bfed1ULL, 0xac8efe121c5989f1ULL,
};

/*
 * The seal of an entry under @key that leads to @address and @port: a sum of products, which
 * another key, address or port that nobody chose so has by one chance in four thousand million
 * (multilinear hashing; Lemire and Kaser, "Strongly universal string hashing is fast").
 */
static inline __attribute__((always_inline)) __u32
seal_of(const struct tuple *key, const struct ip_address *address, __be16 port)
{
	__u64 sum = (key->source_port | (__u32)key->destination_port << 16) * seal_factors[0];

	sum += (port | key->protocol << 16 | (__u32)key->direction << 24) * seal_factors[1];
	for (int i = 0; i < ADDRESS_WORDS; i++) {
		sum += key->source.word[i] * seal_factors[2 + 3 * i];
		sum += key->destination.word[i] * seal_factors[3 + 3 * i];
		sum += address->word[i] * seal_factors[4 + 3 * i];
	}
	return sum >> 32;
}

#endif
