/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ICMP errors that this node owes the sender of a packet that it drops: too big for the
 * tunnel, or one hop too far. The packet itself becomes the answer.
 */
#ifndef OUTGATE_ICMP_ANSWER_H
#define OUTGATE_ICMP_ANSWER_H

#include "classify.h"
#include "config.h"
#include "context.h"
#include "csum.h"
#include "encap.h"
#include "verdict.h"

#if OUTGATE_FAMILY == 4
#define ICMP_FRAGMENTATION_NEEDED 4 /* code of ICMP_DEST_UNREACH */
#define ANSWER_TOO_BIG (ICMP_DEST_UNREACH << 8 | ICMP_FRAGMENTATION_NEEDED)
/*
 * The longest IP header and the 8 bytes after it that every sender needs (RFC 792). Behind
 * a plain IP header that is a whole TCP header with most options.
 */
#define QUOTE_SIZE 68
#else
#define ANSWER_TOO_BIG (ICMP_PACKET_TOO_BIG << 8)
/* As much as fits the smallest MTU, 1280 (RFC 4443, 2.4c), in equal parts for checksum(). */
#define QUOTE_SIZE 1232
#endif
#define ANSWER_TIME_EXCEEDED (ICMP_TIME_EXCEEDED << 8)

#define ANSWER_TTL 64
#define ANSWER_TOS 0xc0 /* internetwork control: RFC 1812, 4.3.2.5 */
#define QUOTE_LEAST (sizeof(struct ip_header) + 8)

/*
 * On each CPU and for each program: what Linux allows itself (icmp_msgs_per_sec and
 * icmp_msgs_burst). Enough for every traceroute and for a burst of new flows; too little
 * for anybody who would make a node flood a forged source.
 */
#define ANSWERS_PER_SECOND 1000
#define ANSWERS_AT_ONCE 50

struct answer_icmp {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 mtu; /* of the next hop: RFC 1191 (its lower half), RFC 4443 */
	__u8 quote[QUOTE_SIZE];
};

struct answer_message {
	struct ip_header ip;
	struct answer_icmp icmp;
} __attribute__((aligned(8)));

/* Of one CPU: what it may still send, and room for what is too large for the stack. */
struct answerer {
	__u64 refilled; /* jiffies */
	__u64 credit;   /* an answer costs as much as there are jiffies in a second */
	struct answer_message message;
	struct ip_header ip; /* of the packet */
	struct ethhdr eth;   /* likewise */
	struct ethhdr back;  /* of the answer */
};

/* Not pinned: nothing of it must outlive the program. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct answerer));
	__uint(max_entries, 1);
} answerers SEC(".maps");

/* A token bucket, refilled by the clock. */
static __always_inline _Bool take_token(struct answerer *answerer)
{
	__u64 cost = settings.jiffies_per_second, now = bpf_jiffies64();
	__u64 credit = answerer->credit + (now - answerer->refilled) * ANSWERS_PER_SECOND;

	if (credit > ANSWERS_AT_ONCE * cost)
		credit = ANSWERS_AT_ONCE * cost;
	answerer->refilled = now;
	answerer->credit = credit < cost ? credit : credit - cost;
	return credit >= cost;
}

/*
 * RFC 1122, 3.2.2, and RFC 4443, 2.4: to whom no ICMP error is ever sent. About which packets,
 * the caller knows.
 */
static __always_inline _Bool may_be_answered(const struct ethhdr *eth,
					     const struct ip_address *sender)
{
	if (eth->h_dest[0] & 1)
		/* A link-layer broadcast or multicast. */
		return 0;
	/* The source is no single host, or not to be reached from here. */
	return !address_is_none(sender) && !is_never_gatewayed(sender);
}

/* The helper sums 512 bytes at once. @size is a constant. */
static __always_inline __u16 checksum(const void *start, __u32 size, __s64 sum)
{
	while (size > 512) {
		sum = bpf_csum_diff(0, 0, (__be32 *)start, 400, sum);
		start += 400;
		size -= 400;
	}
	return ~csum_fold(bpf_csum_diff(0, 0, (__be32 *)start, size, sum));
}

#if OUTGATE_FAMILY == 4

static __always_inline void answer_fill(struct answer_message *message,
					const struct ip_address *source,
					const struct ip_address *sender, __u32 size)
{
	message->icmp.checksum = checksum(&message->icmp, sizeof(message->icmp), 0);
	message->ip.version = 4;
	message->ip.ihl = sizeof(struct iphdr) / 4;
	message->ip.tos = ANSWER_TOS;
	message->ip.tot_len = bpf_htons(size);
	message->ip.frag_off = bpf_htons(IP_DONT_FRAGMENT);
	message->ip.ttl = ANSWER_TTL;
	message->ip.protocol = OUR_ICMP;
	*ip_source(&message->ip) = *source;
	*ip_destination(&message->ip) = *sender;
	message->ip.check = checksum(&message->ip, sizeof(message->ip), 0);
}

#else

static __always_inline void answer_fill(struct answer_message *message,
					const struct ip_address *source,
					const struct ip_address *sender, __u32 size)
{
	__u32 l4_size = size - sizeof(struct ipv6hdr);
	__s64 pseudo = (__s64)bpf_htons(l4_size) + bpf_htons(OUR_ICMP);

	message->ip.version = 6;
	message->ip.priority = ANSWER_TOS >> 4;
	message->ip.payload_len = bpf_htons(l4_size);
	message->ip.nexthdr = OUR_ICMP;
	message->ip.hop_limit = ANSWER_TTL;
	*ip_source(&message->ip) = *source;
	*ip_destination(&message->ip) = *sender;
	pseudo = bpf_csum_diff(0, 0, (__be32 *)&message->ip.saddr, 2 * sizeof(*source), pseudo);
	message->icmp.checksum = checksum(&message->icmp, sizeof(message->icmp), pseudo);
}

#endif

/* Read what is to be quoted of a packet. Return its size, or 0 when it must die unanswered. */
static __always_inline __u32 answer_quote(struct context *context, struct answerer *answerer)
{
	__u32 size = context_size(context) - ETH_HLEN, total;

	if (context_read(context, 0, &answerer->eth, sizeof(answerer->eth)) ||
	    context_read(context, ETH_HLEN, &answerer->ip, sizeof(answerer->ip)))
		return 0;
	total = ip_total_size(&answerer->ip);
	if (total < size)
		/* The rest is padding of the link. */
		size = total;
	if (size > QUOTE_SIZE)
		size = QUOTE_SIZE;
	/* Volatile: else the compiler makes it a call of memset(), which there is not. */
	for (__u32 i = 0; i < sizeof(answerer->message) / sizeof(__u64); i++)
		((volatile __u64 *)&answerer->message)[i] = 0;
	if (size < QUOTE_LEAST ||
	    context_read(context, ETH_HLEN, answerer->message.icmp.quote, size))
		return 0;
	return size;
}

/**
 * icmp_answer - make a packet the ICMP error about itself
 * @kind:   type << 8 | code
 * @source: who answers
 * @mtu:    of the next hop, for ANSWER_TOO_BIG, else 0
 *
 * MACs are exchanged: an answer goes back the way that the packet came. Not inlined, to
 * have a stack of its own. Packet pointers are invalid afterwards.
 *
 * Return: 0, or -1 when the packet must die unanswered.
 */
static __noinline int icmp_answer(struct context *context, __u32 kind,
				  const struct ip_address *source, __u16 mtu)
{
	struct answer_message *message;
	struct answerer *answerer;
	struct ip_address sender;
	__u32 zero = 0, size;

	answerer = bpf_map_lookup_elem(&answerers, &zero);
	if (!answerer)
		return -1;
	size = answer_quote(context, answerer);
	sender = *ip_source(&answerer->ip);
	if (!size || !may_be_answered(&answerer->eth, &sender) || !take_token(answerer))
		return -1;

	message = &answerer->message;
	message->icmp.type = kind >> 8;
	message->icmp.code = kind;
	message->icmp.mtu = bpf_htonl(mtu);
	size += sizeof(*message) - QUOTE_SIZE;
	answer_fill(message, source, &sender, size);
	answerer->back.h_proto = answerer->eth.h_proto;
	__builtin_memcpy(answerer->back.h_dest, answerer->eth.h_source, ETH_ALEN);
	__builtin_memcpy(answerer->back.h_source, answerer->eth.h_dest, ETH_ALEN);

	if (context_remake(context, ETH_HLEN + size) ||
	    context_write(context, 0, &answerer->back, sizeof(answerer->back)) ||
	    context_write(context, ETH_HLEN, message, size))
		return -1;
	return 0;
}

/**
 * answer_drop - tell the sender of a packet why it is dropped, if it is owed an answer
 * @drop: the hook's verdict, -DROP_*; the packet is as it arrived
 *
 * Errors, and parts of a datagram without its head, are answered by nobody.
 * Return: is the packet the answer now? Else it must be dropped.
 */
static __always_inline _Bool answer_drop(struct context *context, const struct packet *packet,
					 int drop, const struct ip_address *source)
{
	const struct runtime_config *config = runtime_config();

	if (packet->class != PACKET_FLOW || packet->fragment == FRAGMENT_LATER)
		return 0;
	if (drop == -DROP_TTL_EXCEEDED)
		return !icmp_answer(context, ANSWER_TIME_EXCEEDED, source, 0);
	if (drop == -DROP_TOO_BIG && config)
		return !icmp_answer(context, ANSWER_TOO_BIG, source, config->tunnel_mtu);
	return 0;
}

#endif
