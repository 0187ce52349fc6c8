// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The pure headers, compiled for the host under the address and undefined-behaviour
 * sanitizers.  Prints one line per failed claim; exit status 0 when all hold.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/csum.h"
#include "include/mss_option.h"
#include "include/parse.h"
#include "include/quote.h"

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

static void random_frames_are_read_within_their_ends(void)
{
	srand(2);
	for (int round = 0; round < 200000; round++) {
		size_t size = (size_t)rand() % 100;
		__u8 *frame = malloc(size ? size : 1);
		struct packet packet;
		struct quote quote;

		for (size_t i = 0; i < size; i++)
			frame[i] = (__u8)rand();
		if (size > 14) {
			frame[12] = 8;
			frame[13] = 0;
			frame[14] = (__u8)(0x40 | (rand() & 15));
		}
		if (size > 23)
			frame[23] = (__u8)(rand() % 3 == 0 ? 6 : rand() % 2 ? 17 : 1);
		if (parse_packet(frame, frame + size, &packet) == PACKET_ICMP_ERROR)
			CLAIM(parse_quote(frame, frame + size, &packet, &quote) != PACKET_FLOW);
		CLAIM(packet.class != PACKET_FLOW || size >= 14 + 20 + 8);
		free(frame);
	}
}

static const __u8 TCP_SYN[] = {
	2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, /* Ethernet */
	0x45, 0, 0, 40, 0, 7, 0, 0, 64, 6, 0, 0, 10, 0, 1, 42, 203, 0, 113, 9, /* IPv4 */
	0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0, /* TCP */
};

static void a_tuple_is_read_as_its_sender_wrote_it(void)
{
	__u8 frame[sizeof(TCP_SYN)];
	struct packet packet;
	struct tuple4 back;

	memcpy(frame, TCP_SYN, sizeof(frame));
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_FLOW);
	CLAIM(packet.tuple.source_port == bpf_htons(40000));
	CLAIM(packet.tuple.destination_port == bpf_htons(80));
	CLAIM(packet.tcp_syn && !packet.tcp_fin && !packet.tcp_rst);
	back = tuple_reverse(&packet.tuple);
	back = tuple_reverse(&back);
	CLAIM(!memcmp(&back, &packet.tuple, sizeof(back)));
	frame[20] = 0x20; /* more fragments */
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_FRAGMENT);
}

static void padding_is_not_read_as_ports(void)
{
	__u8 frame[sizeof(TCP_SYN)];
	struct packet packet;

	memcpy(frame, TCP_SYN, sizeof(frame));
	frame[17] = 39; /* total length: the TCP header's last byte is padding */
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_BROKEN);
	frame[17] = 0; /* longer than the field can say */
	CLAIM(parse_packet(frame, frame + sizeof(frame), &packet) == PACKET_FLOW);
}

#define QUOTE_AT (ETH_HLEN + 20 + 8)
#define QUOTED_L4_AT (QUOTE_AT + 20)

static const __u8 TCP_REFUSED[] = {
	2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, /* Ethernet */
	0x45, 0, 0, 68, 0, 9, 0, 0, 64, 1, 0, 0, 203, 0, 113, 9, 10, 0, 1, 42, /* IPv4 */
	3, 3, 0, 0, 0, 0, 0, 0, /* ICMP: port unreachable */
	0x45, 0, 0, 40, 0, 7, 0, 0, 64, 6, 0, 0, 10, 0, 1, 42, 203, 0, 113, 9, /* quoted IPv4 */
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
	CLAIM(quote.tuple.source == *(const __be32 *)(TCP_REFUSED + QUOTE_AT + 12));
	CLAIM(quote.tuple.destination == *(const __be32 *)(TCP_REFUSED + QUOTE_AT + 16));
	CLAIM(quote.tuple.source_port == bpf_htons(40000));
	CLAIM(quote.tuple.destination_port == bpf_htons(80));
	CLAIM(quote.tuple.protocol == IPPROTO_TCP);
	CLAIM(quote.icmp_offset == ETH_HLEN + 20 && quote.ip_offset == QUOTE_AT);
	CLAIM(quote.l4_offset == QUOTED_L4_AT && quote.checksum_offset == QUOTED_L4_AT + 16);
}

static void a_quoted_echo_has_its_id_on_the_side_that_asks(void)
{
	struct quote quote;
	__u8 frame[sizeof(TCP_REFUSED)];
	struct packet packet;

	memcpy(frame, TCP_REFUSED, sizeof(frame));
	frame[QUOTE_AT + 9] = IPPROTO_ICMP;
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

	CLAIM(refused_with(QUOTE_AT, 0x44, &quote) == PACKET_BROKEN); /* header too short */
	CLAIM(refused_with(QUOTE_AT, 0x65, &quote) == PACKET_BROKEN); /* version 6 */
	CLAIM(refused_with(QUOTE_AT, 0x4f, &quote) == PACKET_BROKEN); /* longer than the quote */
	CLAIM(refused_with(QUOTE_AT + 15, 43, &quote) == PACKET_BROKEN); /* another's packet */
	CLAIM(refused_with(QUOTE_AT + 7, 1, &quote) == PACKET_FRAGMENT);
	CLAIM(refused_with(QUOTE_AT + 6, 0x20, &quote) == PACKET_ICMP_ERROR); /* the first one */
	CLAIM(refused_with(QUOTE_AT + 9, 47, &quote) == PACKET_PROTOCOL);
	CLAIM(refused_with(17, 20 + 8 + 20 + 7, &quote) == PACKET_BROKEN); /* ports in padding */
}

static void a_quoted_tcp_checksum_must_lie_in_the_quote(void)
{
	struct quote quote;

	CLAIM(refused_with(17, 20 + 8 + 20 + 18, &quote) == PACKET_ICMP_ERROR);
	CLAIM(quote.checksum_offset == QUOTED_L4_AT + 16);
	CLAIM(refused_with(17, 20 + 8 + 20 + 17, &quote) == PACKET_ICMP_ERROR);
	CLAIM(!quote.checksum_offset);
	CLAIM(refused_with(QUOTE_AT + 3, 20 + 17, &quote) == PACKET_ICMP_ERROR);
	CLAIM(!quote.checksum_offset);
	CLAIM(refused_with(QUOTE_AT + 9, IPPROTO_UDP, &quote) == PACKET_ICMP_ERROR);
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

int main(void)
{
	an_incremental_checksum_equals_a_full_one();
	no_cut_packet_is_read_beyond_its_end(TCP_SYN, sizeof(TCP_SYN));
	no_cut_packet_is_read_beyond_its_end(TCP_REFUSED, sizeof(TCP_REFUSED));
	random_frames_are_read_within_their_ends();
	a_tuple_is_read_as_its_sender_wrote_it();
	padding_is_not_read_as_ports();
	a_quoted_tuple_is_read_as_its_sender_wrote_it();
	a_quoted_echo_has_its_id_on_the_side_that_asks();
	a_quote_that_names_no_flow_is_told_apart();
	a_quoted_tcp_checksum_must_lie_in_the_quote();
	an_mss_is_found_only_where_it_is_whole();
	return failures != 0;
}
