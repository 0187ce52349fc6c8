// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * from-container: what a pod sends, on the host side of its veth (ingress).
 *
 * A known flow goes where its entry says: to the gateway node, into the world from here,
 * or (it began outside) untouched. Otherwise the policy decides, once.
 */
#include "include/classify.h"
#include "include/config.h"
#include "include/context.h"
#include "include/encap.h"
#include "include/flow.h"
#include "include/fragment_hold.h"
#include "include/free.h"
#include "include/icmp.h"
#include "include/icmp_answer.h"
#include "include/mss.h"
#include "include/nat.h"
#include "include/settle.h"
#include "include/verdict.h"

/* Leave the packet to the host's stack, and tell forward-guard that it was here. */
static __always_inline int let_pass(struct context *context)
{
	context_mark(context, settings.mark_mask, settings.mark_seen);
	return VERDICT_PASS;
}

/* This node is the gateway: translate here, or let the host's stack carry it to to-netdev. */
static __always_inline int leave_here(struct context *context, const struct packet *packet,
				      __u32 *policy)
{
	int result;

	if (settings.gateway_path == GATEWAY_STACK) {
		context_mark(context, settings.mark_mask, settings.mark_overlay);
		return VERDICT_PASS;
	}
	result = nat_find(context, packet, policy);
	if (result > 0)
		result = nat_open_flow(context, &packet->tuple);
	return result ? result : snat_send(context, packet);
}

/* Send a packet where its flow, found or just decided, goes. */
static __always_inline int send_flow(struct context *context, const struct packet *packet,
				     __u32 *policy)
{
	const struct flow_entry *flow = &context->work->flow;
	int verdict = fragment_learn(context, packet, FRAGMENT_KNOWN);

	if (verdict)
		return verdict;
	switch (flow->decision) {
	case FLOW_INBOUND:
		/* A reply of a connection that began outside: it leaves as it came. */
		return let_pass(context);
	case FLOW_TO_GATEWAY:
		if (exceeds_tunnel(context, packet))
			return -DROP_TOO_BIG;
		if (mss_clamp(context, packet))
			return -DROP_REWRITE;
		return encap_redirect(context, &flow->tunnel_endpoint);
	case FLOW_LOCAL_GATEWAY:
		return leave_here(context, packet, policy);
	default:
		return -DROP_INVALID;
	}
}

/* An ICMP error goes where the flow goes that it speaks of. */
static __always_inline int send_error(struct context *context, const struct packet *packet,
				      const struct flow_entry *flow, __u32 *policy)
{
	switch (flow->decision) {
	case FLOW_INBOUND:
		return let_pass(context);
	case FLOW_TO_GATEWAY:
		return encap_redirect(context, &flow->tunnel_endpoint);
	case FLOW_LOCAL_GATEWAY:
		if (settings.gateway_path == GATEWAY_DIRECT)
			return error_send(context, packet, &context->work->origin.tunnel_endpoint,
					  policy);
		context_mark(context, settings.mark_mask, settings.mark_overlay);
		return VERDICT_PASS;
	default:
		return -DROP_INVALID;
	}
}

/*
 * No policy covers the pair: it keeps the network plugin's ways. But a pod that policies
 * select in the other family alone may have been forgotten in this one.
 */
static __always_inline int leave_alone(struct context *context, const struct tuple *tuple,
				       const struct endpoint *pod)
{
	if (!(pod->roles & (ROLE_OTHER_FAMILY | ROLE_SELECTED)))
		return let_pass(context);
	if (is_never_gatewayed(&tuple->destination))
		return let_pass(context);
	if (is_cluster_destination(&tuple->destination))
		/*
		 * A Service may lead outside: forward-guard judges what the host makes of it. It
		 * lets pass what is for the cluster, so only a selected pod goes unmarked.
		 */
		return pod->roles & ROLE_SELECTED ? VERDICT_PASS : let_pass(context);
	if (pod->roles & ROLE_OTHER_FAMILY) {
		if (settings.other_family == OTHER_FAMILY_DROP)
			return -DROP_OTHER_FAMILY;
		context->pass_reason = OTHER_FAMILY;
	}
	return let_pass(context);
}

/* Decide a flow that no entry knows. Return: a verdict, or DECIDED: its entry is made. */
#define DECIDED 1
static __always_inline int decide(struct context *context, const struct packet *packet,
				  __u32 *policy)
{
	const struct tuple *tuple = &packet->tuple;
	struct endpoint *pod = endpoint_lookup(&tuple->source);
	const struct origin *origin = &context->work->origin;
	struct flow_entry *flow = &context->work->flow;
	const struct egress_value *row;

	if (is_to_tunnel(tuple))
		return -DROP_FORGED_TUNNEL;
	if (!pod || !(pod->flags & ENDPOINT_POD)) {
		if (is_node_address(&tuple->source))
			/* Wherever it goes: a node's tunnel may listen there. */
			return -DROP_FORGED_TUNNEL;
		*policy = unknown_pod_policy(tuple, 0);
		/* No pod network's address, or nothing that a policy covers: not ours. */
		return *policy ? -DROP_UNKNOWN_POD : let_pass(context);
	}
	if (!is_interface_of(pod, origin->ifindex)) {
		*policy = unknown_pod_policy(tuple, 0);
		return *policy ? -DROP_OTHER_INTERFACE : let_pass(context);
	}
	row = covering_row(tuple);
	if (!row)
		return leave_alone(context, tuple, pod);

	/* Covered: from here on the packet is tunnelled, translated, or dropped. */
	*policy = row->policy;
	if (packet->class == PACKET_FRAGMENT && packet->fragment == FRAGMENT_LATER)
		return fragment_hold(context) ? -DROP_FRAGMENT : -FRAGMENT_HELD;
	if (packet->class != PACKET_FLOW)
		return -unsupported(packet->class);
	if (row->kind == POLICY_NO_GATEWAY)
		return -DROP_NO_GATEWAY;
	if (row->kind != POLICY_GATEWAY)
		return -DROP_NO_EGRESS_IP;

	__builtin_memset(flow, 0, sizeof(*flow));
	flow->last_seen = bpf_jiffies64();
	flow->decision = is_host_address(&row->tunnel_endpoint) ? FLOW_LOCAL_GATEWAY
								: FLOW_TO_GATEWAY;
	flow->policy = row->policy;
	flow->generation = policy_generation();
	flow->tunnel_endpoint = row->tunnel_endpoint;
	flow->egress_ip = row->egress_ip;
	flow->tcp = tcp_bits(packet, 0);
	flow->ifindex = origin->ifindex;
	__builtin_memcpy(flow->pod_mac, origin->pod_mac, ETH_ADDRESS_SIZE);
	__builtin_memcpy(flow->host_mac, origin->host_mac, ETH_ADDRESS_SIZE);
	if (flow_open(context->work, tuple))
		return -DROP_FLOW_TABLE_FULL;
	return DECIDED;
}

/*
 * Does @flow belong to the pod behind this interface? One that began outside learns from its
 * first reply where the pod is.
 */
static __always_inline _Bool is_flow_of(struct flow_entry *flow, const struct packet *packet,
					const struct origin *origin)
{
	struct endpoint *pod;

	if (flow->ifindex == origin->ifindex)
		return 1;
	if (flow->decision != FLOW_INBOUND || flow->ifindex)
		return 0;
	pod = endpoint_lookup(&packet->tuple.source);
	if (pod && (pod->flags & ENDPOINT_POD) && !is_interface_of(pod, origin->ifindex))
		return 0;
	flow->ifindex = origin->ifindex;
	__builtin_memcpy(flow->pod_mac, origin->pod_mac, ETH_ADDRESS_SIZE);
	__builtin_memcpy(flow->host_mac, origin->host_mac, ETH_ADDRESS_SIZE);
	return 1;
}

/*
 * Is it plain at once that decide() would let the packet pass, and that no flow says otherwise?
 * So of what a pod sends behind its interface that no policy selects, or ever did.
 */
static __always_inline _Bool is_free(const struct tuple *tuple, __u32 ifindex)
{
	struct endpoint *pod;

	if (!is_free_address(&tuple->source))
		return 0;
	pod = endpoint_lookup(&tuple->source);
	return pod && (pod->flags & ENDPOINT_POD) &&
	       !(pod->roles & (ROLE_OTHER_FAMILY | ROLE_SELECTED)) && !is_to_tunnel(tuple) &&
	       is_interface_of(pod, ifindex);
}

static __always_inline int handle(struct context *context, struct packet *packet, __u32 *policy)
{
	struct work *work = context->work;
	struct flow_entry *flow = 0;
	__u64 now = bpf_jiffies64();
	int verdict;

	context_parse(context, packet);
	if (packet->class == PACKET_OTHER_FAMILY)
		return VERDICT_PASS;
	if (packet->class == PACKET_OTHER)
		/*
		 * No IP as far as we see, but the stack may see more: it takes two priority tags
		 * off. Without our mark forward-guard looks at what comes out.
		 */
		return VERDICT_PASS;
	if (!packet->l4_offset)
		/* Who talks to whom cannot be told, so neither that no policy covers it. */
		return -DROP_INVALID;
	if (packet->class == PACKET_FLOW && is_free(&packet->tuple, context->skb->ifindex))
		return let_pass(context);
	if (origin_of_pod(context))
		return -DROP_INVALID;

	fragment_resolve(context, packet);
	if (packet->class == PACKET_ICMP_ERROR) {
		context_quote(context, packet);
		fragment_resolve_quote(context, packet);
		flow = error_flow(context, packet);
		if (!flow || !is_flow_of(flow, packet, &work->origin))
			return decide(context, packet, policy);
		*policy = flow->policy;
		return send_error(context, packet, flow, policy);
	}
	if (packet->class == PACKET_FLOW)
		flow = flow_lookup(packet, now);
	if (flow && is_flow_of(flow, packet, &work->origin)) {
		*policy = flow->policy;
		flow_touch(flow, tcp_bits(packet, 0), now);
		work->flow = *flow;
	} else {
		verdict = decide(context, packet, policy);
		if (verdict != DECIDED)
			return verdict;
	}
	return send_flow(context, packet, policy);
}

SEC("tc")
int FAMILY(from_container)(struct __sk_buff *skb)
{
	struct context context = { .skb = skb, .work = work_begin() };
	const struct ip_address *source;
	struct packet *packet;
	__u32 policy = 0;
	int verdict;

	if (!context.work)
		return VERDICT_DROP;
	packet = &context.work->packet;
	verdict = handle(&context, packet, &policy);

	if (verdict == VERDICT_PASS && context.pass_reason)
		count(context.pass_reason, DIRECTION_TO_WORLD, policy, skb->len);
	if (verdict == VERDICT_PASS)
		return VERDICT_NEXT;
	if (context.is_released)
		return verdict;
	settle(&context, packet, verdict, DIRECTION_TO_WORLD, policy);
	/*
	 * From the gateway as its egress IP. Before it, from where the packet was going: a pod
	 * need not let in anything from its node, but from its peer it does.
	 */
	source = &packet->tuple.destination;
	if (!address_is_none(&context.work->egress_ip))
		source = &context.work->egress_ip;
	if (verdict < 0 && answer_drop(&context, packet, verdict, source))
		return context_redirect_pod(&context, skb->ifindex);
	return verdict < 0 ? VERDICT_DROP : verdict;
}

char _license[] SEC("license") = "GPL";
