/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What comes out of the tunnel, once its outer header is off and its node is known.
 *
 * For a pod of this node: the reply of a flow that the pod started, or nothing. Else this
 * node is the gateway: translate and send, or hand to the host's stack (a setting).
 * Called by from_overlay behind the tunnel device, and by from_netdev, which takes outer
 * headers off itself.
 */
#ifndef OUTGATE_OVERLAY_H
#define OUTGATE_OVERLAY_H

#include "classify.h"
#include "config.h"
#include "context.h"
#include "encap.h"
#include "flow.h"
#include "fragment.h"
#include "icmp.h"
#include "icmp_answer.h"
#include "nat.h"
#include "settle.h"
#include "verdict.h"

static __always_inline int deliver(struct context *context, const struct packet *packet,
				   const struct ip_address *node, __u32 *policy)
{
	_Bool is_error = packet->class == PACKET_ICMP_ERROR;
	struct tuple view = is_error ? context->work->quote.tuple
				     : tuple_reverse(&packet->tuple);
	__u64 now = bpf_jiffies64();
	struct flow_entry *flow;
	__u32 ifindex;

	if (packet->class != PACKET_FLOW && !is_error)
		return -unsupported(packet->class);
	flow = flow_lookup_reply(&view, now);
	if (!flow || flow->decision != FLOW_TO_GATEWAY ||
	    !is_same_node(&flow->tunnel_endpoint, node))
		return -DROP_NO_FLOW;
	*policy = flow->policy;
	if (!is_error) {
		flow_touch(flow, tcp_bits(packet, 1), now);
		fragment_learn_ordered(context, packet);
	}
	ifindex = flow->ifindex;
	if (context_untag(context))
		return -DROP_REWRITE;
	if (context_write_macs(context, flow->pod_mac, flow->host_mac))
		return -DROP_INVALID;
	return context_redirect_pod(context, ifindex);
}

/* The row that makes this node the gateway of a new flow; or NULL with @error set. */
static __always_inline const struct egress_value *
gateway_row(const struct tuple *tuple, const struct ip_address *node, __u32 *policy, int *error)
{
	const struct egress_value *row;

	*error = -DROP_FORGED_POD;
	if (!is_pod_of_node(&tuple->source, node))
		return 0;
	*error = -DROP_NO_POLICY;
	row = covering_row(tuple);
	if (!row)
		return 0;
	*policy = row->policy;
	if (row->kind == POLICY_GATEWAY && is_host_address(&row->tunnel_endpoint))
		return row;
	if (row->kind == POLICY_NO_GATEWAY)
		*error = -DROP_NO_GATEWAY;
	else if (row->kind == POLICY_NO_EGRESS_IP)
		*error = -DROP_NO_EGRESS_IP;
	return 0;
}

static __always_inline int translate(struct context *context, const struct packet *packet,
				     const struct ip_address *node, __u32 *policy)
{
	const struct egress_value *row;
	int result, error;

	context->work->origin = (struct origin){ .tunnel_endpoint = *node };
	result = nat_find(context, packet, policy);
	if (result > 0) {
		row = gateway_row(&packet->tuple, node, policy, &error);
		if (!row)
			return error;
		result = nat_open(context, &packet->tuple, &row->egress_ip, row->policy);
	}
	if (result)
		return result;
	fragment_learn_ordered(context, packet);
	return snat_send(context, packet);
}

/* Path "stack": let the host route the packet; to-netdev translates what carries the mark. */
static __always_inline int hand_to_stack(struct context *context)
{
	const struct runtime_config *config = runtime_config();

	if (!config)
		return -DROP_NO_TUNNEL;
	if (context_write_macs(context, config->tunnel_mac, config->tunnel_mac))
		return -DROP_INVALID;
	bpf_skb_change_type(context->skb, 0 /* PACKET_HOST */);
	context_mark(context, settings.mark_mask, settings.mark_overlay);
	return VERDICT_PASS;
}

/* Path "stack": note where replies go. */
static __always_inline int hand_flow_to_stack(struct context *context,
					      const struct packet *packet,
					      const struct ip_address *node,
					      __u32 *policy)
{
	struct flow_entry *entry = &context->work->flow;
	struct flow_entry *flow = flow_lookup(packet, bpf_jiffies64());
	const struct egress_value *row;
	int error;

	if (flow && flow->decision == FLOW_FROM_TUNNEL &&
	    address_equal(&flow->tunnel_endpoint, node)) {
		*policy = flow->policy;
		flow_touch(flow, tcp_bits(packet, 0), bpf_jiffies64());
	} else {
		row = gateway_row(&packet->tuple, node, policy, &error);
		if (!row)
			return error;
		__builtin_memset(entry, 0, sizeof(*entry));
		entry->decision = FLOW_FROM_TUNNEL;
		entry->tunnel_endpoint = *node;
		entry->policy = row->policy;
		entry->generation = policy_generation();
		entry->egress_ip = row->egress_ip;
		entry->last_seen = bpf_jiffies64();
		if (flow_open(context->work, &packet->tuple))
			return -DROP_FLOW_TABLE_FULL;
	}
	fragment_learn_ordered(context, packet);
	return hand_to_stack(context);
}

/* An ICMP error that a pod of @node sends follows its flow, and opens none. */
static __always_inline int forward_error(struct context *context, const struct packet *packet,
					 const struct ip_address *node, __u32 *policy)
{
	const struct flow_entry *flow;

	if (settings.gateway_path == GATEWAY_DIRECT)
		return error_send(context, packet, node, policy);
	flow = error_flow(context, packet);
	if (!flow || flow->decision != FLOW_FROM_TUNNEL ||
	    !address_equal(&flow->tunnel_endpoint, node))
		return -DROP_ICMP_NO_FLOW;
	*policy = flow->policy;
	return hand_to_stack(context);
}

/**
 * overlay_handle - decide about a packet that node @node tunnelled here
 * @packet: parsed
 * @direction: set, for its counter
 * Return: a verdict, or -DROP_*.
 */
static __always_inline int overlay_handle(struct context *context, struct packet *packet,
					  const struct ip_address *node, __u32 *policy,
					  __u8 *direction)
{
	*direction = DIRECTION_TO_WORLD;
	if (packet->class == PACKET_OTHER)
		return -DROP_INVALID;
	fragment_resolve(context, packet);
	if (packet->class == PACKET_ICMP_ERROR) {
		context_quote(context, packet);
		fragment_resolve_quote(context, packet);
	}
	if (is_pod_address(&packet->tuple.destination)) {
		*direction = DIRECTION_TO_POD;
		return deliver(context, packet, node, policy);
	}
	if (packet->class == PACKET_ICMP_ERROR)
		return forward_error(context, packet, node, policy);
	if (packet->class != PACKET_FLOW)
		return -unsupported(packet->class);
	if (settings.gateway_path == GATEWAY_STACK)
		return hand_flow_to_stack(context, packet, node, policy);
	return translate(context, packet, node, policy);
}

/* Count, tell and answer. Return what the kernel is told. */
static __always_inline int overlay_settle(struct context *context, const struct packet *packet,
					  const struct ip_address *node, int verdict,
					  __u8 direction, __u32 policy)
{
	if (verdict == VERDICT_PASS)
		/* To the host's stack; to-netdev counts it. */
		return VERDICT_NEXT;
	settle(context, packet, verdict, direction, policy);
	/* As its egress IP: the address by which pods' owners and the world know a gateway. */
	if (verdict < 0 && answer_drop(context, packet, verdict, &context->work->egress_ip))
		verdict = encap_redirect(context, node);
	return verdict < 0 ? VERDICT_DROP : verdict;
}

#endif
