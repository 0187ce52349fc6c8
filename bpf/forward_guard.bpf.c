// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * forward-guard: what the host's stack forwards, before a network plugin masquerades it
 * (netfilter, FORWARD).
 *
 * A packet of a local pod to a covered network must have passed from-container, which marks
 * what it lets pass. One without a mark came from a veth that is not hooked yet, or while
 * no agent was there to hook it: it is dropped. After masquerade nobody could tell.
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

/* Here a packet begins with its IP header, which the stack has checked. */
static __always_inline int handle(struct bpf_nf_ctx *context, struct tuple *tuple, __u32 *policy)
{
	struct bpf_dynptr data;
	struct ip_header *ip, buffer;

	if (is_seen(context->skb))
		return 0;
	if (bpf_dynptr_from_skb((struct __sk_buff *)context->skb, 0, &data))
		return -DROP_INVALID;
	ip = bpf_dynptr_slice(&data, 0, &buffer, sizeof(buffer));
	if (!ip)
		return -DROP_INVALID;
	tuple->source = *ip_source(ip);
	tuple->destination = *ip_destination(ip);
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
