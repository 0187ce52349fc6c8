// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * to-netdev: the last stop before the wire, on the node's uplinks (egress).
 *
 * Three duties: translate what the host's stack routed for us (path "stack"), keep the
 * ports of the node's own sockets on a shared egress IP, and guard: what a policy covers
 * and nobody translated does not leave.
 */
#include "include/classify.h"
#include "include/config.h"
#include "include/context.h"
#include "include/flow.h"
#include "include/fragment.h"
#include "include/icmp.h"
#include "include/nat.h"
#include "include/settle.h"
#include "include/verdict.h"

/* The TTL is the routing stack's business here. */
static __always_inline int translate(struct context *context, const struct packet *packet,
				     __u32 *policy)
{
	struct work *work = context->work;
	struct origin *origin = &work->origin;
	struct flow_entry *flow;
	int result;

	if (packet->class != PACKET_FLOW)
		return -unsupported(packet->class);
	flow = flow_lookup_reply(&packet->tuple, bpf_jiffies64());
	if (!flow)
		return -DROP_UNTRANSLATED;
	*policy = flow->policy;
	work->flow = *flow;
	flow = &work->flow;
	__builtin_memset(origin, 0, sizeof(*origin));
	if (flow->decision == FLOW_FROM_TUNNEL) {
		origin->tunnel_endpoint = flow->tunnel_endpoint;
	} else if (flow->decision == FLOW_LOCAL_GATEWAY) {
		origin->ifindex = flow->ifindex;
		__builtin_memcpy(origin->pod_mac, flow->pod_mac, ETH_ADDRESS_SIZE);
		__builtin_memcpy(origin->host_mac, flow->host_mac, ETH_ADDRESS_SIZE);
	} else {
		return -DROP_UNTRANSLATED;
	}
	result = nat_find(context, packet, policy);
	if (result > 0)
		result = nat_open_flow(context, &packet->tuple);
	if (!result)
		result = nat_write(context, packet, NAT_FORWARD, &work->translation.address,
				   work->translation.port, 0);
	if (result)
		return result;
	fragment_learn_translated(context, packet, NAT_FORWARD);
	context_mark(context, settings.mark_mask, settings.mark_translated);
	return VERDICT_PASS;
}

/* As translate(), an ICMP error that a pod sends. */
static __always_inline int translate_error(struct context *context, struct packet *packet,
					   __u32 *policy)
{
	const struct nat_entry *translation = &context->work->translation;
	int error;

	context_quote(context, packet);
	fragment_resolve_quote(context, packet);
	error = error_translation(context, packet);
	if (error)
		return error;
	*policy = translation->policy;
	error = icmp_write(context, NAT_FORWARD, &translation->address, translation->port, 0);
	if (error)
		return error;
	context_mark(context, settings.mark_mask, settings.mark_translated);
	return VERDICT_PASS;
}

/* Does it answer, or speak of, a flow that began outside? */
static __always_inline _Bool is_of_inbound_flow(struct context *context, struct packet *packet)
{
	const struct flow_entry *flow = 0;

	if (packet->class == PACKET_FLOW) {
		flow = flow_lookup(packet, bpf_jiffies64());
	} else if (packet->class == PACKET_ICMP_ERROR) {
		context_quote(context, packet);
		fragment_resolve_quote(context, packet);
		flow = error_flow(context, packet);
	}
	return flow && flow->decision == FLOW_INBOUND;
}

/*
 * Must this port be kept from pods? Answers need no entry: their socket is found by looking
 * it up, and anybody outside can make the node answer, each time on another tuple.
 */
static __always_inline _Bool needs_entry(const struct packet *packet)
{
	if (packet->tcp_accept || packet->tcp_rst ||
	    (packet->tuple.protocol == OUR_ICMP && !packet->echo_request))
		return 0;
	return is_in_range(packet->tuple.source_port);
}

/* A packet of the node itself from an egress IP: its port is not for pods. */
static __always_inline int keep_host_port(struct work *work, const struct packet *packet)
{
	const struct tuple *tuple = &packet->tuple;
	struct nat_entry *taken, *host = &work->reverse;
	__u64 now = bpf_jiffies64();
	long error;

	work->reply = reverse_key(tuple, &tuple->source, tuple->source_port);
	taken = nat_lookup(&work->reply);
	if (taken && (taken->flags & NAT_HOST_SOCKET)) {
		if (is_reopened(packet, taken->tcp))
			taken->tcp = 0;
		touch_host_port(taken, tcp_bits(packet, 0), now);
		return VERDICT_PASS;
	}
	if (taken && is_live(taken->last_seen, tuple->protocol, taken->tcp, now))
		/* Its reply would go to the pod: the socket must try another port. */
		return -DROP_HOST_PORT_TAKEN;
	if (!needs_entry(packet))
		return VERDICT_PASS;
	__builtin_memset(host, 0, sizeof(*host));
	host->flags = NAT_HOST_SOCKET;
	host->last_seen = now;
	error = own_reply(&work->reply, host, taken, now);
	if (error == REPLY_TAKEN)
		return -DROP_HOST_PORT_TAKEN;
	if (!error && !taken)
		garbage_nat(work, tuple, &tuple->source, tuple->source_port);
	return VERDICT_PASS;
}

static __always_inline _Bool has_mark(const struct __sk_buff *skb, __u32 mark)
{
	return (skb->mark & settings.mark_mask) == mark;
}

static __always_inline int handle(struct context *context, struct packet *packet, __u32 *policy)
{
	const struct endpoint *endpoint;
	const struct egress_value *row;

	context_parse(context, packet);
	if (packet->class == PACKET_OTHER_FAMILY)
		return VERDICT_PASS;
	fragment_resolve(context, packet);
	if (has_mark(context->skb, settings.mark_overlay)) {
		if (packet->class == PACKET_OTHER)
			return -DROP_INVALID;
		return packet->class == PACKET_ICMP_ERROR ? translate_error(context, packet, policy)
							  : translate(context, packet, policy);
	}
	if (packet->class == PACKET_OTHER)
		/* No IP: no policy covers it. */
		return VERDICT_PASS;
	if (!packet->l4_offset)
		/* Who talks to whom cannot be told, so neither that no policy covers it. */
		return -DROP_INVALID;

	endpoint = endpoint_lookup(&packet->tuple.source);
	if (endpoint && (endpoint->flags & ENDPOINT_HOST)) {
		if (!(endpoint->roles & ROLE_EGRESS_IP) || packet->class != PACKET_FLOW ||
		    is_cluster_destination(&packet->tuple.destination))
			return VERDICT_PASS;
		return keep_host_port(context->work, packet);
	}
	row = covering_row(&packet->tuple);
	if (!row) {
		if (endpoint)
			/* A known pod, and no policy covers the pair. */
			return VERDICT_PASS;
		*policy = unknown_pod_policy(&packet->tuple, 1);
		return *policy ? -DROP_UNKNOWN_POD : VERDICT_PASS;
	}
	*policy = row->policy;
	return is_of_inbound_flow(context, packet) ? VERDICT_PASS : -DROP_UNTRANSLATED;
}

SEC("tc")
int FAMILY(to_netdev)(struct __sk_buff *skb)
{
	struct context context = { .skb = skb };
	struct packet *packet;
	__u32 policy = 0;
	int verdict;

	if (has_mark(skb, settings.mark_translated))
		/* From-netdev, from-overlay or from-container did it. */
		return VERDICT_NEXT;
	context.work = work_begin();
	if (!context.work)
		return VERDICT_DROP;
	packet = &context.work->packet;
	verdict = handle(&context, packet, &policy);

	if (verdict == VERDICT_PASS && !(policy && has_mark(skb, settings.mark_translated)))
		return VERDICT_NEXT;
	settle(&context, packet, verdict, DIRECTION_TO_WORLD, policy);
	return verdict < 0 ? VERDICT_DROP : VERDICT_NEXT;
}

char _license[] SEC("license") = "GPL";
