// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * from-netdev: what arrives from the wire, on the node's uplinks (ingress).
 *
 * A reply to a translated flow gets its pod's address back and goes to the pod: through
 * the tunnel to its node, or straight into its veth; so does an ICMP error that speaks of
 * one. What other nodes tunnelled here is taken out of the tunnel, and goes on as behind
 * the tunnel device (overlay.h). Everything else is the host's.
 */
#include "include/classify.h"
#include "include/config.h"
#include "include/context.h"
#include "include/decap.h"
#include "include/encap.h"
#include "include/flow.h"
#include "include/fragment_hold.h"
#include "include/icmp.h"
#include "include/icmp_answer.h"
#include "include/mss.h"
#include "include/nat.h"
#include "include/overlay.h"
#include "include/settle.h"
#include "include/verdict.h"

static __always_inline int send_to_pod(struct context *context, const struct nat_entry *entry)
{
	if (!address_is_none(&entry->tunnel_endpoint))
		return encap_redirect(context, &entry->tunnel_endpoint);
	if (context_untag(context))
		return -DROP_REWRITE;
	if (context_write_macs(context, entry->to_mac, entry->from_mac))
		return -DROP_INVALID;
	return context_redirect_pod(context, entry->ifindex);
}

/* The outer source stays: it is the router that refused, and traceroute shows it. */
static __always_inline int handle_error(struct context *context, struct packet *packet,
					__u32 *policy)
{
	const struct nat_entry *reverse;
	struct work *work = context->work;
	struct nat_entry *entry = &work->translation;
	struct tuple *key = &work->key;
	int error;

	context_quote(context, packet);
	fragment_resolve_quote(context, packet);
	if (packet->class != PACKET_ICMP_ERROR)
		/* It names no flow of ours. */
		return VERDICT_PASS;
	*key = tuple_reverse(&work->quote.tuple);
	key->direction = NAT_REVERSE;
	reverse = bpf_map_lookup_elem(&FAMILY(outgate_snat), key);
	if (!reverse)
		return VERDICT_PASS;
	error = nat_read(entry, reverse, key);
	if (error)
		return error;
	if ((entry->flags & NAT_HOST_SOCKET) ||
	    !is_live(entry->last_seen, key->protocol, entry->tcp, bpf_jiffies64()))
		/* About something that the node itself sent, or that nobody did. */
		return VERDICT_PASS;
	*policy = entry->policy;
	error = icmp_write(context, NAT_REVERSE, &entry->address, entry->port, 1);
	return error ? error : send_to_pod(context, entry);
}

/* Parts of other datagrams are the host's at once. */
static __always_inline _Bool is_to_egress_ip(const struct packet *packet)
{
	const struct endpoint *endpoint = endpoint_lookup(&packet->tuple.destination);

	return endpoint && (endpoint->roles & ROLE_EGRESS_IP);
}

/* A later part whose datagram is not known to be a pod's. */
static __always_inline int handle_part(struct context *context, const struct packet *packet)
{
	const struct fragment_value *known;

	known = bpf_map_lookup_elem(&FAMILY(outgate_frag), &context->work->datagram);
	if (known && known->state == FRAGMENT_NOT_OURS &&
	    is_current(known, bpf_jiffies64()))
		return VERDICT_PASS;
	/* Without room it is the host's, as it would be without us. */
	return is_to_egress_ip(packet) && !fragment_hold(context) ? -FRAGMENT_HELD : VERDICT_PASS;
}

/* The host's own; so are the other parts, if it is one. */
static __always_inline int leave_to_host(struct context *context, const struct packet *packet)
{
	if (packet->fragment != FRAGMENT_FIRST || !is_to_egress_ip(packet))
		return VERDICT_PASS;
	return fragment_learn(context, packet, FRAGMENT_NOT_OURS);
}

static __always_inline int handle(struct context *context, struct packet *packet, __u32 *policy)
{
	__u64 now = bpf_jiffies64();
	struct work *work = context->work;
	struct nat_entry *reverse, *entry = &work->translation;
	struct tuple *key = &work->key;
	_Bool is_tunnelled;
	int verdict;

	context_parse(context, packet);
	fragment_resolve(context, packet);
	if (packet->class == PACKET_ICMP_ERROR)
		return handle_error(context, packet, policy);
	if (packet->class == PACKET_FRAGMENT)
		return handle_part(context, packet);
	if (packet->class != PACKET_FLOW)
		/* Only what has ports or an echo's id is translated, so only that returns. */
		return leave_to_host(context, packet);
	*key = packet->tuple;
	key->direction = NAT_REVERSE;
	reverse = bpf_map_lookup_elem(&FAMILY(outgate_snat), key);
	if (!reverse)
		return leave_to_host(context, packet);
	verdict = nat_read(entry, reverse, key);
	if (verdict)
		return verdict;
	if (entry->flags & NAT_HOST_SOCKET) {
		/* A socket of this node. */
		touch_host_port(reverse, tcp_bits(packet, 1), now);
		return leave_to_host(context, packet);
	}
	if (!is_live(entry->last_seen, packet->tuple.protocol, entry->tcp, now))
		/* The flow is over; the host answers as for any unknown packet. */
		return leave_to_host(context, packet);
	*policy = entry->policy;
	verdict = fragment_learn(context, packet, FRAGMENT_KNOWN);
	if (verdict)
		return verdict;
	nat_touch_reverse(work, reverse, packet, now);
	is_tunnelled = !address_is_none(&entry->tunnel_endpoint);
	if (is_tunnelled && exceeds_tunnel(context, packet))
		return -DROP_TOO_BIG;
	verdict = nat_write(context, packet, NAT_REVERSE, &entry->address, entry->port, 1);
	if (verdict)
		return verdict;
	fragment_learn_translated(context, packet, NAT_REVERSE);
	if (is_tunnelled && mss_clamp(context, packet))
		return -DROP_REWRITE;
	return send_to_pod(context, entry);
}

/* From the wire itself. Not inlined, to have a stack of its own. */
static __noinline int receive(struct context *context)
{
	struct packet *packet = &context->work->packet;
	__u32 policy = 0;
	int verdict = handle(context, packet, &policy);

	if (verdict == VERDICT_PASS)
		return VERDICT_NEXT;
	if (context->is_released)
		return verdict;
	settle(context, packet, verdict, DIRECTION_TO_POD, policy);
	if (verdict < 0 && answer_drop(context, packet, verdict, &packet->tuple.destination)) {
		/* From the egress IP: all that the server knows of us. */
		context_mark(context, settings.mark_mask, settings.mark_translated);
		return context_redirect_back(context);
	}
	return verdict < 0 ? VERDICT_DROP : verdict;
}

/* From node @node, by the tunnel. Likewise. */
static __noinline int receive_tunnelled(struct context *context, const struct ip_address *node)
{
	struct packet *packet = &context->work->packet;
	__u32 policy = 0;
	__u8 direction;
	int verdict;

	context_parse(context, packet);
	verdict = overlay_handle(context, packet, node, &policy, &direction);
	return overlay_settle(context, packet, node, verdict, direction, policy);
}

SEC("tc")
int FAMILY(from_netdev)(struct __sk_buff *skb)
{
	struct context context = { .skb = skb, .work = work_begin() };
	int result;

	if (!context.work)
		return VERDICT_DROP;
	result = decap(&context, &context.work->node);
	if (!result)
		return receive(&context);
	if (result == DECAP_FAILED)
		return VERDICT_DROP;
	return receive_tunnelled(&context, &context.work->node);
}

char _license[] SEC("license") = "GPL";
