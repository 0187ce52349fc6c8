// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * to-container: what a pod is about to receive, on the host side of its veth (egress).
 *
 * Remembers flows that begin outside, so that from-container leaves their replies alone;
 * only for pairs that a policy covers, or whose replies the setting other-family would drop,
 * since nobody asks about the others. Never drops.
 */
#include "include/classify.h"
#include "include/config.h"
#include "include/context.h"
#include "include/flow.h"
#include "include/free.h"

/* May this packet begin a flow? Replies to the pod's own flows come another way. */
static __always_inline _Bool begins(const struct packet *packet)
{
	switch (packet->tuple.protocol) {
	case IPPROTO_TCP:
		return packet->tcp_syn;
	case OUR_ICMP:
		return packet->echo_request;
	default:
		return 1;
	}
}

/*
 * Would from-container drop the replies of this pod, which policies select in the other
 * family alone? Then who called it must be known; else only the pod's own flows are meant.
 */
static __always_inline _Bool is_cut_off(const struct tuple *view)
{
	const struct endpoint *pod;

	if (settings.other_family != OTHER_FAMILY_DROP)
		return 0;
	pod = endpoint_lookup(&view->source);
	return pod && (pod->roles & ROLE_OTHER_FAMILY) &&
	       !is_cluster_destination(&view->destination);
}

/* May this packet begin a flow where there is a live one already? */
static __always_inline _Bool begins_anew(const struct packet *packet,
					 const struct flow_entry *flow)
{
	if (flow->decision == FLOW_INBOUND)
		return is_reopened(packet, flow->tcp);
	/* Not before the pod's own connection is over: a forged SYN would uncover it. */
	return packet->tcp_syn && is_closed(flow->tcp);
}

SEC("tc")
int FAMILY(to_container)(struct __sk_buff *skb)
{
	struct context context = { .skb = skb, .work = work_begin() };
	struct flow_entry *inbound;
	const struct egress_value *row;
	struct flow_entry *flow;
	__u64 now = bpf_jiffies64();
	struct packet *packet;
	struct tuple *view;

	if (!context.work)
		/* Never: the verifier is told so. */
		return VERDICT_NEXT;
	packet = &context.work->packet;
	if (context_parse(&context, packet) != PACKET_FLOW)
		/* Without ports there is no flow to remember. */
		return VERDICT_NEXT;
	view = &context.work->key;
	if (settings.other_family != OTHER_FAMILY_DROP &&
	    is_free_address(&packet->tuple.destination))
		/* No policy covers it, and no flow is known that it could belong to. */
		return VERDICT_NEXT;
	*view = tuple_reverse(&packet->tuple);
	flow = flow_lookup_reply(view, now);
	if (flow && !begins_anew(packet, flow)) {
		/* A pod's own flow gets no answer this way: what claims to be one is forged. */
		if (flow->decision == FLOW_INBOUND)
			flow_touch(flow, tcp_bits(packet, 1), now);
		return VERDICT_NEXT;
	}
	if (!begins(packet))
		return VERDICT_NEXT;
	row = covering_row(view);
	if (!row && !is_cut_off(view))
		/* No policy would capture the replies. */
		return VERDICT_NEXT;
	inbound = &context.work->flow;
	__builtin_memset(inbound, 0, sizeof(*inbound));
	inbound->decision = FLOW_INBOUND;
	inbound->policy = row ? row->policy : 0;
	inbound->last_seen = now;
	flow_open(context.work, view);
	return VERDICT_NEXT;
}

char _license[] SEC("license") = "GPL";
