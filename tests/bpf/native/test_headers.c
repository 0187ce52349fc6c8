// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The pure headers, compiled for the host under the address and undefined-behaviour
 * sanitizers, once for each IP family.  Prints one line per failed claim; exit status 0 when
 * all hold.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/csum.h"
#include "include/mss_option.h"
#include "include/parse.h"
#include "include/quote.h"
#include "include/seal.h"

#if OUTGATE_FAMILY == 4
#define IP_SIZE 20
#define VERSION 0x45
#define ETH_TYPE 8, 0
#define PROTOCOL_AT 9
#define LENGTH_AT 3 /* the lower byte */
#define LENGTH(l4_size) (IP_SIZE + (l4_size))
#define SOURCE_AT 12
#define POD 10, 0, 1, 42
#define SERVER 203, 0, 113, 9
#define IP_HEADER(l4_size, protocol, source, destination) \
	VERSION, 0, 0, LENGTH(l4_size), 0, 7, 0, 0, 64, protocol, 0, 0, source, destination
#else
#define IP_SIZE 40
#define VERSION 0x60
#define ETH_TYPE 0x86, 0xdd
#define PROTOCOL_AT 6
#define LENGTH_AT 5
#define LENGTH(l4_size) (l4_size)
#define SOURCE_AT 8
#define POD 0xfd, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 42
#define SERVER 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9
#define IP_HEADER(l4_size, protocol, source, destination) \
	VERSION, 0, 0, 0, 0, LENGTH(l4_size), protocol, 64, source, destination
#endif

#define ADDRESS_SIZE sizeof(struct ip_address)

static int failures;

#define CLAIM(condition)                                                        \
	do {                                                                    \
		if (!(condition)) {                                             \
			printf("line %d: not so: %s\n", __LINE__, #condition);  \
			failures++;                                             \
		}                                                               \
	} while (0)

/* RFC 1071 over 16-bit words as they lie in memory. */
static __u16 full_sum(const __u16 *words, size_t count)
{
	__u32 sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += words[i];
	return (__u16)~csum_fold(sum);
}

static void an_incremental_checksum_equals_a_full_one(void)
{
	srand(1);
	for (int round = 0; round < 100000; round++) {
		__u16 words[10], before;
		__u32 from, to;

		for (size_t i = 0; i < 10; i++)
			words[i] = (__u16)rand();
		words[5] = 0;
		words[5] = full_sum(words, 10);
		before = words[5];
		memcpy(&from, &words[6], 4);
		to = round % 7 ? (__u32)rand() : from;
		memcpy(&words[6], &to, 4);
		words[5] = 0;
		/* A sum is 0 or 0xffff only for all-zero data, which has no such words. */
		CLAIM(csum_replace4(before, from, to) == full_sum(words, 10));
	}
}

/* Each prefix of a packet lies at the end of its own allocation: one byte more is caught. */
static void no_cut_packet_is_read_beyond_its_end(const __u8 *frame, size_t size)
{
	for (size_t cut = 0; cut <= size; cut++) {
		__u8 *copy = malloc(cut ? cut : 1);
		struct packet packet;
		struct quote quote;

		memcpy(copy, frame, cut);
		parse_packet(copy, copy + cut, &packet);
		if (packet.class == PACKET_ICMP_ERROR)
			parse_quote(copy, copy + cut, &packet, &quote);
		if (cut < ETH_HLEN)
			CLAIM(packet.class == PACKET_OTHER);
		free(copy);
	}
}

/* Those that are parsed further, the extensions of IPv6 and one that nobody knows. */
static const __u8 PROTOCOLS[] = { 6, 17, OUR_ICMP, 132, 0, 43, 44, 60, 99 };

static void random_frames_are_read_within_their_ends(void)
{
	srand(2);
	for (int round = 0; round < 200000; round++) {
		size_t size = (size_t)rand() % 400;
		__u8 *frame = malloc(size ? size : 1);
		struct packet packet;
		struct quote quote;

		for (size_t i = 0; i < size; i++)
			frame[i] = (__u8)rand();
		if (size > 14) {
			memcpy(frame + 12, (__u8[]){ ETH_TYPE }, 2);
			frame[14] = (__u8)((VERSION & 0xf0) | (rand() & 15));
		}
		if (size > ETH_HLEN + PROTOCOL_AT)
			frame[ETH_HLEN + PROTOCOL_AT] = PROTOCOLS[(size_t)rand() %
								   sizeof(PROTOCOLS)];
		if (parse_packet(frame, frame + size, &packet) == PACKET_ICMP_ERROR)
			CLAIM(parse_quote(frame, frame + size, &packet, &quote) != PACKET_FLOW);
		CLAIM(packet.class != PACKET_FLOW || size >= ETH_HLEN + IP_SIZE + 8);
		free(frame);
	}
}

static const __u8 TCP_SYN[] = {
	2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ETH_TYPE,
	IP_HEADER(20, IPPROTO_TCP, POD, SERVER),
	0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
};

static void a_tuple_is_read_as_its_sender_wrote_it(void)
{
	__u8 frame[sizeof(TCP_SYN)];
	struct packet packet;
	struct tuple back;

	memcpy(frame, TCP_SYN, sizeof(frame));
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_FLOW);
	CLAIM(packet.tuple.source_port == bpf_htons(40000));
	CLAIM(packet.tuple.destination_port == bpf_htons(80));
	CLAIM(packet.tcp_syn && !packet.tcp_fin && !packet.tcp_rst);
	back = tuple_reverse(&packet.tuple);
	back = tuple_reverse(&back);
	CLAIM(!memcmp(&back, &packet.tuple, sizeof(back)));
}

#if OUTGATE_FAMILY == 4

static void fragments_are_told_apart(void)
{
	__u8 frame[sizeof(TCP_SYN)];
	struct packet packet;

	memcpy(frame, TCP_SYN, sizeof(frame));
	frame[20] = 0x20; /* more follow: the first one has the ports */
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_FLOW);
	CLAIM(packet.fragment == FRAGMENT_FIRST && packet.id == bpf_htons(7));
	CLAIM(packet.tuple.source_port == bpf_htons(40000));
	frame[21] = 3;
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_FRAGMENT);
	CLAIM(packet.fragment == FRAGMENT_LATER && !packet.tuple.source_port);
	frame[20] = 0; /* the last one */
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_FRAGMENT);
}

#else

/* TCP_SYN with @size bytes of extension headers, of which the first is of type @next. */
static enum packet_class with_extensions(__u8 next, const __u8 *extensions, __u8 size,
					 struct packet *packet)
{
	__u8 *frame = malloc(sizeof(TCP_SYN) + size);
	const size_t head = ETH_HLEN + IP_SIZE;
	enum packet_class class;

	memcpy(frame, TCP_SYN, head);
	frame[ETH_HLEN + PROTOCOL_AT] = next;
	frame[ETH_HLEN + LENGTH_AT] = (__u8)(20 + size);
	frame[ETH_HLEN + LENGTH_AT - 1] = (__u8)((20 + size) >> 8);
	memcpy(frame + head, extensions, size);
	memcpy(frame + head + size, TCP_SYN + head, 20);
	class = parse_packet(frame, frame + sizeof(TCP_SYN) + size, packet);
	free(frame);
	return class;
}

static void fragments_are_told_apart(void)
{
	struct packet packet;

	CLAIM(with_extensions(44, (__u8[]){ 6, 0, 0, 1, 0, 0, 0, 7 }, 8, &packet) == PACKET_FLOW);
	CLAIM(packet.fragment == FRAGMENT_FIRST && packet.id == bpf_htonl(7));
	CLAIM(packet.tuple.source_port == bpf_htons(40000));
	CLAIM(with_extensions(44, (__u8[]){ 6, 0, 0, 9, 0, 0, 0, 7 }, 8, &packet) ==
	      PACKET_FRAGMENT);
	CLAIM(packet.fragment == FRAGMENT_LATER && !packet.tuple.source_port);
	/* RFC 6946: a datagram of one fragment is whole. */
	CLAIM(with_extensions(44, (__u8[]){ 6, 0, 0, 0, 0, 0, 0, 7 }, 8, &packet) == PACKET_FLOW);
	CLAIM(packet.fragment == FRAGMENT_NONE);
}

static void extension_headers_are_walked(void)
{
	static const __u8 MANY[] = {
		60, 0, 1, 4, 0, 0, 0, 0, /* hop by hop */
		43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* destination */
		6, 0, 4, 0, 0, 0, 0, 0, /* routing, done */
	};
	__u8 long_one[256] = { 6, 31 }, many[7 * 8], left[8] = { 6, 0, 4, 1 };
	struct packet packet;

	CLAIM(with_extensions(0, MANY, sizeof(MANY), &packet) == PACKET_FLOW);
	CLAIM(packet.l4_offset == ETH_HLEN + 40 + sizeof(MANY) && packet.l4_size == 20);
	CLAIM(packet.tuple.source_port == bpf_htons(40000) && packet.tuple.protocol == 6);
	CLAIM(with_extensions(60, long_one, 248, &packet) == PACKET_BROKEN);
	long_one[1] = 30;
	CLAIM(with_extensions(60, long_one, 248, &packet) == PACKET_FLOW);
	long_one[1] = 32;
	CLAIM(with_extensions(60, long_one, 255, &packet) == PACKET_PROTOCOL);
	CLAIM(with_extensions(43, left, sizeof(left), &packet) == PACKET_PROTOCOL);
	CLAIM(packet.tuple.protocol == 43);
	for (size_t i = 0; i < sizeof(many); i++)
		many[i] = i % 8 ? 0 : 60;
	CLAIM(with_extensions(60, many, sizeof(many), &packet) == PACKET_PROTOCOL);
}

static void an_address_of_the_other_family_is_told_apart(void)
{
	struct ip_address mapped = { { 0, 0, bpf_htonl(0xffff), bpf_htonl(0xac120005) } }, back;
	struct any_address any;

	CLAIM(address_is_mapped(&mapped));
	CLAIM(address_to_any(&mapped, &any) == FAMILY_IPV4);
	CLAIM(any.word[0] == bpf_htonl(0xac120005) && !any.word[1] && !any.word[3]);
	back = address_of_any(&any, FAMILY_IPV4);
	CLAIM(address_equal(&back, &mapped));
	memset(&any, 0, sizeof(any));
	back = address_of_any(&any, FAMILY_IPV4);
	CLAIM(address_is_none(&back));
	mapped.word[0] = bpf_htonl(0xfe800000);
	CLAIM(!address_is_mapped(&mapped) && is_never_gatewayed(&mapped));
	mapped.word[0] = bpf_htonl(0xfec00000);
	CLAIM(!is_never_gatewayed(&mapped));
}

#endif

static void padding_is_not_read_as_ports(void)
{
	__u8 frame[sizeof(TCP_SYN)];
	struct packet packet;

	memcpy(frame, TCP_SYN, sizeof(frame));
	/* The TCP header's last byte is padding. */
	frame[ETH_HLEN + LENGTH_AT] = LENGTH(19);
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_BROKEN);
	frame[ETH_HLEN + LENGTH_AT] = 0; /* longer than the field can say */
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_FLOW);
}

#define QUOTE_AT (ETH_HLEN + IP_SIZE + 8)
#define QUOTED_L4_AT (QUOTE_AT + IP_SIZE)

static const __u8 TCP_REFUSED[] = {
	2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ETH_TYPE,
	IP_HEADER(8 + IP_SIZE + 20, OUR_ICMP, SERVER, POD),
	ICMP_DEST_UNREACH, 3, 0, 0, 0, 0, 0, 0,
	IP_HEADER(20, IPPROTO_TCP, POD, SERVER), /* quoted */
	0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0xca, 0xfe, 0, 0,
};

/* What parse_quote() makes of TCP_REFUSED with one byte changed. */
static enum packet_class refused_with(size_t at, __u8 value, struct quote *quote)
{
	__u8 frame[sizeof(TCP_REFUSED)];
	struct packet packet;

	memcpy(frame, TCP_REFUSED, sizeof(frame));
	frame[at] = value;
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_ICMP_ERROR);
	return parse_quote(frame, frame + sizeof(frame), &packet, quote);
}

static void a_quoted_tuple_is_read_as_its_sender_wrote_it(void)
{
	struct quote quote;

	CLAIM(refused_with(0, 2, &quote) == PACKET_ICMP_ERROR);
	CLAIM(!memcmp(&quote.tuple.source, (__u8[]){ POD }, ADDRESS_SIZE));
	CLAIM(!memcmp(&quote.tuple.destination, (__u8[]){ SERVER }, ADDRESS_SIZE));
	CLAIM(quote.tuple.source_port == bpf_htons(40000));
	CLAIM(quote.tuple.destination_port == bpf_htons(80));
	CLAIM(quote.tuple.protocol == IPPROTO_TCP);
	CLAIM(quote.icmp_offset == ETH_HLEN + IP_SIZE && quote.ip_offset == QUOTE_AT);
	CLAIM(quote.l4_offset == QUOTED_L4_AT && quote.checksum_offset == QUOTED_L4_AT + 16);
}

static void a_quoted_echo_has_its_id_on_the_side_that_asks(void)
{
	struct quote quote;
	__u8 frame[sizeof(TCP_REFUSED)];
	struct packet packet;

	memcpy(frame, TCP_REFUSED, sizeof(frame));
	frame[QUOTE_AT + PROTOCOL_AT] = OUR_ICMP;
	memcpy(frame + QUOTED_L4_AT, (__u8[]){ ICMP_ECHO, 0, 0, 0, 0x9c, 0x40 }, 6);
	parse_packet(frame, frame + sizeof(frame), &packet);
	CLAIM(parse_quote(frame, frame + sizeof(frame), &packet, &quote) == PACKET_ICMP_ERROR);
	CLAIM(quote.tuple.source_port == bpf_htons(40000) && !quote.tuple.destination_port);
	CLAIM(quote.checksum_offset == QUOTED_L4_AT + 2);
	frame[QUOTED_L4_AT] = ICMP_ECHOREPLY;
	parse_packet(frame, frame + sizeof(frame), &packet);
	CLAIM(parse_quote(frame, frame + sizeof(frame), &packet, &quote) == PACKET_ICMP_ERROR);
	CLAIM(!quote.tuple.source_port && quote.tuple.destination_port == bpf_htons(40000));
	frame[QUOTED_L4_AT] = ICMP_DEST_UNREACH;
	parse_packet(frame, frame + sizeof(frame), &packet);
	CLAIM(parse_quote(frame, frame + sizeof(frame), &packet, &quote) == PACKET_ICMP);
}

static void a_quote_that_names_no_flow_is_told_apart(void)
{
	struct quote quote;

#if OUTGATE_FAMILY == 4
	CLAIM(refused_with(QUOTE_AT, 0x44, &quote) == PACKET_BROKEN); /* header too short */
	CLAIM(refused_with(QUOTE_AT, 0x4f, &quote) == PACKET_BROKEN); /* longer than the quote */
	CLAIM(refused_with(QUOTE_AT + 7, 1, &quote) == PACKET_FRAGMENT);
	CLAIM(refused_with(QUOTE_AT + 6, 0x20, &quote) == PACKET_ICMP_ERROR); /* the first one */
#else
	/* The first bytes of TCP, read as a header of destination options and as a fragment's. */
	CLAIM(refused_with(QUOTE_AT + PROTOCOL_AT, 60, &quote) == PACKET_PROTOCOL);
	CLAIM(refused_with(QUOTE_AT + PROTOCOL_AT, 44, &quote) == PACKET_FRAGMENT);
#endif
	CLAIM(refused_with(QUOTE_AT, VERSION ^ 0x20, &quote) == PACKET_BROKEN); /* the other IP */
	/* Another's packet. */
	CLAIM(refused_with(QUOTE_AT + SOURCE_AT + ADDRESS_SIZE - 1, 43, &quote) == PACKET_BROKEN);
	CLAIM(refused_with(QUOTE_AT + PROTOCOL_AT, 47, &quote) == PACKET_PROTOCOL);
	/* Ports in padding. */
	CLAIM(refused_with(ETH_HLEN + LENGTH_AT, LENGTH(8 + IP_SIZE + 7), &quote) ==
	      PACKET_BROKEN);
}

static void a_quoted_tcp_checksum_must_lie_in_the_quote(void)
{
	struct quote quote;

	CLAIM(refused_with(ETH_HLEN + LENGTH_AT, LENGTH(8 + IP_SIZE + 18), &quote) ==
	      PACKET_ICMP_ERROR);
	CLAIM(quote.checksum_offset == QUOTED_L4_AT + 16);
	CLAIM(refused_with(ETH_HLEN + LENGTH_AT, LENGTH(8 + IP_SIZE + 17), &quote) ==
	      PACKET_ICMP_ERROR);
	CLAIM(!quote.checksum_offset);
	CLAIM(refused_with(QUOTE_AT + LENGTH_AT, LENGTH(17), &quote) == PACKET_ICMP_ERROR);
	CLAIM(!quote.checksum_offset);
	CLAIM(refused_with(QUOTE_AT + PROTOCOL_AT, IPPROTO_UDP, &quote) == PACKET_ICMP_ERROR);
	CLAIM(quote.checksum_offset == QUOTED_L4_AT + 6);
}

static void an_mss_is_found_only_where_it_is_whole(void)
{
	static const __u8 MSS[TCP_OPTIONS_SIZE] = { 1, 3, 3, 7, 2, 4, 5, 180 };
	__u8 options[TCP_OPTIONS_SIZE];

	for (__u32 size = 0; size <= TCP_OPTIONS_SIZE; size++)
		CLAIM(mss_find(MSS, size) == (size < 8 ? 0 : 6));
	memset(options, TCP_OPTION_NOP, sizeof(options));
	CLAIM(mss_find(options, sizeof(options)) == 0);
	memcpy(options + 36, MSS + 4, 4);
	CLAIM(mss_find(options, sizeof(options)) == 38);
	for (int round = 0; round < 1000000; round++) {
		__u32 at, size = (__u32)rand() % (TCP_OPTIONS_SIZE + 1);

		for (size_t i = 0; i < sizeof(options); i++)
			options[i] = (__u8)(rand() % 6);
		at = mss_find(options, size);
		CLAIM(!at || (at + 2 <= size && options[at - 2] == TCP_OPTION_MSS &&
			      options[at - 1] == MSS_OPTION_SIZE));
	}
}

/* Claim that each bit of @size bytes at @part, which is in @key or @entry, is in the seal. */
static void claim_sealed(const struct tuple *key, const struct nat_entry *entry, void *part,
			 size_t size)
{
	__u32 seal = seal_of(key, &entry->address, entry->port);
	__u8 *bytes = part;

	for (size_t bit = 0; bit < 8 * size; bit++) {
		bytes[bit / 8] ^= (__u8)(1 << bit % 8);
		CLAIM(seal != seal_of(key, &entry->address, entry->port));
		bytes[bit / 8] ^= (__u8)(1 << bit % 8);
	}
	CLAIM(seal == seal_of(key, &entry->address, entry->port));
}

static void a_seal_tells_of_key_address_and_port(void)
{
	struct nat_entry entry;
	struct tuple key;

	for (int round = 0; round < 1000; round++) {
		__u8 *fields[] = { (__u8 *)&key, (__u8 *)&entry };
		size_t sizes[] = { sizeof(key), sizeof(entry) };

		for (int i = 0; i < 2; i++)
			for (size_t at = 0; at < sizes[i]; at++)
				fields[i][at] = round ? (__u8)rand() : 0;
		claim_sealed(&key, &entry, &key, offsetof(struct tuple, pad));
		claim_sealed(&key, &entry, &entry.address, sizeof(entry.address));
		claim_sealed(&key, &entry, &entry.port, sizeof(entry.port));
	}
}

static void a_seal_tells_who_is_where(void)
{
	struct tuple key = { .source = { { 1 } }, .destination = { { 2 } }, .source_port = 3,
			     .destination_port = 4 };
	struct tuple turned = { .source = key.destination, .destination = key.source,
				.source_port = 4, .destination_port = 3 };
	struct ip_address address = { { 1 } };

	CLAIM(seal_of(&key, &address, 3) != seal_of(&turned, &address, 3));
	CLAIM(seal_of(&key, &key.source, 3) != seal_of(&key, &key.destination, 3));
}

int main(void)
{
	an_incremental_checksum_equals_a_full_one();
	no_cut_packet_is_read_beyond_its_end(TCP_SYN, sizeof(TCP_SYN));
	no_cut_packet_is_read_beyond_its_end(TCP_REFUSED, sizeof(TCP_REFUSED));
	random_frames_are_read_within_their_ends();
	a_tuple_is_read_as_its_sender_wrote_it();
	fragments_are_told_apart();
#if OUTGATE_FAMILY == 6
	extension_headers_are_walked();
	an_address_of_the_other_family_is_told_apart();
#endif
	padding_is_not_read_as_ports();
	a_quoted_tuple_is_read_as_its_sender_wrote_it();
	a_quoted_echo_has_its_id_on_the_side_that_asks();
	a_quote_that_names_no_flow_is_told_apart();
	a_quoted_tcp_checksum_must_lie_in_the_quote();
	an_mss_is_found_only_where_it_is_whole();
	a_seal_tells_of_key_address_and_port();
	a_seal_tells_who_is_where();
	return failures != 0;
}
