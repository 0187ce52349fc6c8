// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * forward-guard: what the host's stack forwards, before a network plugin masquerades it
 * (netfilter, FORWARD).
 *
 * A packet of a local pod to a covered network must have passed from-container, which marks
 * what it lets pass. One without a mark came from a veth that is not hooked yet, or while
 * no agent was there to hook it: it is dropped. After masquerade nobody could tell.
 *
 * Nor does a pod reach a node's tunnel port by the name of a service: from-container saw the
 * service's address, here is what it stands for.
 */
#include "include/classify.h"
#include "include/config.h"
#include "include/event.h"
#include "include/verdict.h"

/* <linux/netfilter.h> drags the C library in. */
#define NF_DROP 0
#define NF_ACCEPT 1

/* Of the kernel's own structures the part that is read; the loader mends the offsets. */
struct sk_buff {
	__u32 len;
	__u32 mark;
} __attribute__((preserve_access_index));

struct bpf_nf_ctx {
	const void *state;
	struct sk_buff *skb;
};

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags,
			       struct bpf_dynptr *data) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *data, __u32 offset, void *buffer,
			      __u32 buffer_size) __ksym;

/* Did from-container let the packet pass, or a hook leave it to to-netdev? */
static __always_inline _Bool is_seen(const struct sk_buff *skb)
{
	__u32 mark = skb->mark & settings.mark_mask;

	return mark == settings.mark_seen || mark == settings.mark_overlay;
}

/* Where the transport header begins, and in @tuple its protocol; 0 for a later part. */
static __always_inline __u32 find_l4(const struct bpf_dynptr *data, const struct ip_header *ip,
				     struct tuple *tuple)
{
#if OUTGATE_FAMILY == 4
	(void)data;
	tuple->protocol = ip->protocol;
	return ip->frag_off & bpf_htons(IP_FRAGMENT_OFFSET) ? 0 : ip->ihl * 4;
#else
	struct extension_header *header, buffer;
	__u32 offset = sizeof(*ip);

	tuple->protocol = ip->nexthdr;
	for (int i = 0; i < EXTENSION_COUNT && is_extension(tuple->protocol); i++) {
		header = bpf_dynptr_slice(data, offset, &buffer, sizeof(buffer));
		if (!header)
			break;
		if (tuple->protocol != NEXT_FRAGMENT)
			offset += header->size * 8;
		else if (header->place & bpf_htons(~7))
			return 0;
		offset += sizeof(*header);
		tuple->protocol = header->next;
	}
	return offset;
#endif
}

/* Is it a pod's, and goes where tunnelled packets are received? See is_to_tunnel(). */
static __always_inline _Bool is_pod_to_tunnel(const struct bpf_dynptr *data,
					      const struct ip_header *ip, struct tuple *tuple)
{
	const struct ipcache_value *source;
	struct udphdr *udp, buffer;
	__u32 offset = find_l4(data, ip, tuple);

	if (!offset)
		return 0;
	if (tuple->protocol == IPPROTO_UDP) {
		udp = bpf_dynptr_slice(data, offset, &buffer, sizeof(buffer));
		if (!udp)
			return 0;
		tuple->source_port = udp->source;
		tuple->destination_port = udp->dest;
	}
	if (!is_to_tunnel(tuple))
		return 0;
	source = ipcache_lookup(&tuple->source);
	return source && source->identity == IDENTITY_CLUSTER;
}

/* Here a packet begins with its IP header, which the stack has checked. */
static __always_inline int handle(struct bpf_nf_ctx *context, struct tuple *tuple, __u32 *policy)
{
	struct bpf_dynptr data;
	struct ip_header *ip, buffer;

	if (bpf_dynptr_from_skb((struct __sk_buff *)context->skb, 0, &data))
		return -DROP_INVALID;
	ip = bpf_dynptr_slice(&data, 0, &buffer, sizeof(buffer));
	if (!ip)
		return -DROP_INVALID;
	tuple->source = *ip_source(ip);
	tuple->destination = *ip_destination(ip);
	if (is_pod_to_tunnel(&data, ip, tuple))
		return -DROP_FORGED_TUNNEL;
	if (is_seen(context->skb))
		return 0;
	*policy = unknown_pod_policy(tuple, 1);
	return *policy ? -DROP_UNSEEN_POD : 0;
}

SEC("netfilter")
int FAMILY(forward_guard)(struct bpf_nf_ctx *context)
{
	struct work *work = work_begin();
	struct tuple tuple = {};
	__u32 policy = 0;
	int result = handle(context, &tuple, &policy);

	if (!result)
		return NF_ACCEPT;
	count(-result, DIRECTION_TO_WORLD, policy, context->skb->len);
	if (work)
		event_drop(work, -result, DIRECTION_TO_WORLD, &tuple, policy);
	return NF_DROP;
}

char _license[] SEC("license") = "GPL";
