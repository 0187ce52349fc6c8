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

/* RFC 792. */
#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4 /* code of the former */
#define ICMP_TIME_EXCEEDED 11

#define ANSWER_TTL 64
#define ANSWER_TOS 0xc0 /* internetwork control: RFC 1812, 4.3.2.5 */

/*
 * The longest IP header and the 8 bytes after it that every sender needs (RFC 792). Behind
 * a plain IP header that is a whole TCP header with most options.
 */
#define QUOTE_SIZE 68
#define QUOTE_LEAST (sizeof(struct iphdr) + 8)

/*
 * On each CPU and for each program: what Linux allows itself (icmp_msgs_per_sec and
 * icmp_msgs_burst). Enough for every traceroute and for a burst of new flows; too little
 * for anybody who would make a node flood a forged source.
 */
#define ANSWERS_PER_SECOND 1000
#define ANSWERS_AT_ONCE 50

struct answer_message {
	struct iphdr ip;
	struct {
		__u8 type;
		__u8 code;
		__u16 checksum;
		__be16 unused;
		__be16 mtu; /* of the next hop, RFC 1191 */
	} icmp;
	__u8 quote[QUOTE_SIZE];
};

/* Of one CPU: what it may still send, and room for what is too large for the stack. */
struct answerer {
	__u64 refilled; /* jiffies */
	__u64 credit;   /* an answer costs as much as there are jiffies in a second */
	struct answer_message message;
	struct iphdr ip;     /* of the packet */
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

/* RFC 1122, 3.2.2: to whom and about what no ICMP error is ever sent. */
static __always_inline _Bool may_be_answered(const struct ethhdr *eth, const struct iphdr *ip,
					     __u8 icmp_type)
{
	if (eth->h_dest[0] & 1)
		/* A link-layer broadcast or multicast. */
		return 0;
	if (!ip->saddr || is_never_gatewayed(ip->saddr))
		/* The source is no single host, or not to be reached from here. */
		return 0;
	if (ip->frag_off & bpf_htons(IP_FRAGMENT_OFFSET))
		return 0;
	return ip->protocol != IPPROTO_ICMP || icmp_type == ICMP_ECHO ||
	       icmp_type == ICMP_ECHOREPLY;
}

static __always_inline __u16 checksum(const void *start, __u32 size)
{
	return ~csum_fold(bpf_csum_diff(0, 0, (__be32 *)start, size, 0));
}

/**
 * icmp_answer - make a packet the ICMP error about itself
 * @kind:   type << 8 | code
 * @source: who answers
 * @mtu:    of the next hop, for ICMP_FRAGMENTATION_NEEDED, else 0
 *
 * MACs are exchanged: an answer goes back the way that the packet came. Not inlined, to
 * have a stack of its own. Packet pointers are invalid afterwards.
 *
 * Return: 0, or -1 when the packet must die unanswered.
 */
static __noinline int icmp_answer(struct context *context, __u32 kind, __be32 source, __u16 mtu)
{
	__u32 size = context_size(context) - ETH_HLEN, total;
	struct answer_message *message;
	struct answerer *answerer;
	__u32 zero = 0;
	__u8 icmp_type = 0;

	answerer = bpf_map_lookup_elem(&answerers, &zero);
	if (!answerer)
		return -1;
	if (context_read(context, 0, &answerer->eth, sizeof(answerer->eth)) ||
	    context_read(context, ETH_HLEN, &answerer->ip, sizeof(answerer->ip)))
		return -1;
	total = bpf_ntohs(answerer->ip.tot_len);
	if (total && total < size)
		/* The rest is padding of the link. */
		size = total;
	if (size > QUOTE_SIZE)
		size = QUOTE_SIZE;
	message = &answerer->message;
	__builtin_memset(message, 0, sizeof(*message));
	if (size < QUOTE_LEAST || context_read(context, ETH_HLEN, message->quote, size))
		return -1;
	if (answerer->ip.protocol == IPPROTO_ICMP &&
	    context_read(context, ETH_HLEN + answerer->ip.ihl * 4, &icmp_type, 1))
		return -1;
	if (!may_be_answered(&answerer->eth, &answerer->ip, icmp_type) || !take_token(answerer))
		return -1;

	message->icmp.type = kind >> 8;
	message->icmp.code = kind;
	message->icmp.mtu = bpf_htons(mtu);
	message->icmp.checksum = checksum(&message->icmp, sizeof(message->icmp) + QUOTE_SIZE);
	message->ip.version = 4;
	message->ip.ihl = sizeof(struct iphdr) / 4;
	message->ip.tos = ANSWER_TOS;
	message->ip.tot_len = bpf_htons(sizeof(*message) - QUOTE_SIZE + size);
	message->ip.frag_off = bpf_htons(IP_DONT_FRAGMENT);
	message->ip.ttl = ANSWER_TTL;
	message->ip.protocol = IPPROTO_ICMP;
	message->ip.saddr = source;
	message->ip.daddr = answerer->ip.saddr;
	message->ip.check = checksum(&message->ip, sizeof(message->ip));
	answerer->back.h_proto = answerer->eth.h_proto;
	__builtin_memcpy(answerer->back.h_dest, answerer->eth.h_source, ETH_ALEN);
	__builtin_memcpy(answerer->back.h_source, answerer->eth.h_dest, ETH_ALEN);

	size += sizeof(*message) - QUOTE_SIZE;
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
 * Return: is the packet the answer now? Else it must be dropped.
 */
static __always_inline _Bool answer_drop(struct context *context, int drop, __be32 source)
{
	const struct runtime_config *config = runtime_config();

	if (drop == -DROP_TTL_EXCEEDED)
		return !icmp_answer(context, ICMP_TIME_EXCEEDED << 8, source, 0);
	if (drop == -DROP_TOO_BIG && config)
		return !icmp_answer(context, ICMP_UNREACHABLE << 8 | ICMP_FRAGMENTATION_NEEDED,
				    source, config->tunnel_mtu);
	return 0;
}

#endif
