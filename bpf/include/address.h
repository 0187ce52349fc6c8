/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Addresses of either family, as values.
 * PURE: no map, no helper; also compiled for the host.
 */
#ifndef OUTGATE_ADDRESS_H
#define OUTGATE_ADDRESS_H

#include <bpf/bpf_endian.h>

#include "csum.h"
#include "types.h"

static inline __attribute__((always_inline)) _Bool
address_equal(const struct ip_address *one, const struct ip_address *other)
{
	__u32 differs = 0;

	for (int i = 0; i < ADDRESS_WORDS; i++)
		differs |= one->word[i] ^ other->word[i];
	return !differs;
}

static inline __attribute__((always_inline)) _Bool address_is_none(const struct ip_address *address)
{
	__u32 any = 0;

	for (int i = 0; i < ADDRESS_WORDS; i++)
		any |= address->word[i];
	return !any;
}

static inline __attribute__((always_inline)) _Bool mac_equal(const void *one, const void *other)
{
	const __u16 *parts = one, *others = other;

	return parts[0] == others[0] && parts[1] == others[1] && parts[2] == others[2];
}

#if OUTGATE_FAMILY == 6
/* Is it an IPv4 address in IPv6's clothes (::ffff:a.b.c.d)? */
static inline __attribute__((always_inline)) _Bool
address_is_mapped(const struct ip_address *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == bpf_htonl(0xffff);
}
#endif

/* The address for a map that both families share. Return its FAMILY_*. */
static inline __attribute__((always_inline)) __u8
address_to_any(const struct ip_address *address, struct any_address *any)
{
#if OUTGATE_FAMILY == 4
	*any = (struct any_address){ .word = { address->word[0] } };
	return FAMILY_IPV4;
#else
	if (address_is_mapped(address)) {
		*any = (struct any_address){ .word = { address->word[3] } };
		return FAMILY_IPV4;
	}
	__builtin_memcpy(any, address, sizeof(*any));
	return FAMILY_IPV6;
#endif
}

/* The address that @any of FAMILY_* @family is as a tunnel endpoint; none if not to be said. */
static inline __attribute__((always_inline)) struct ip_address
address_of_any(const struct any_address *any, __u8 family)
{
	struct ip_address address = {};

#if OUTGATE_FAMILY == 4
	if (family == FAMILY_IPV4)
		address.word[0] = any->word[0];
#else
	if (family == FAMILY_IPV6) {
		__builtin_memcpy(&address, any, sizeof(address));
	} else if (any->word[0]) {
		address.word[2] = bpf_htonl(0xffff);
		address.word[3] = any->word[0];
	}
#endif
	return address;
}

/*
 * Loopback, link-local, multicast and broadcast: they stay on the host or the link, and
 * nobody's policy means them. The kernel routes the rest, 0/8 and 240/4 too.
 */
static inline __attribute__((always_inline)) _Bool
is_never_gatewayed(const struct ip_address *address)
{
	__u32 first = bpf_ntohl(address->word[0]);

#if OUTGATE_FAMILY == 4
	return first >> 24 == 127 || first >> 16 == 0xa9fe || first >> 28 == 0xe ||
	       first == 0xffffffff;
#else
	if (first >> 24 == 0xff || first >> 22 == 0xfe80 >> 6)
		return 1;
	/* :: and ::1 */
	return !address->word[0] && !address->word[1] && !address->word[2] &&
	       !(address->word[3] & ~bpf_htonl(1));
#endif
}

/* As csum_replace4(), for a whole address. */
static inline __attribute__((always_inline)) __u16
csum_replace_address(__u16 check, const struct ip_address *from, const struct ip_address *to)
{
	for (int i = 0; i < ADDRESS_WORDS; i++)
		check = csum_replace4(check, from->word[i], to->word[i]);
	return check;
}

#endif
