// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * from-netdev: what arrives from the wire, on the node's uplinks (ingress).
 *
 * A reply to a translated flow gets its pod's address back and goes to the pod: through
 * the tunnel to its node, or straight into its veth. Everything else is the host's.
 */
#include "include/config.h"
#include "include/context.h"
#include "include/encap.h"
#include "include/flow.h"
#include "include/nat.h"
#include "include/verdict.h"

static __always_inline int reverse_nat(struct context *context, const struct packet *packet,
				       const struct nat_entry *entry)
{
	int error = nat_write(context, packet, NAT_REVERSE, entry->address, entry->port, 1);

	if (error)
		return error;
	if (entry->tunnel_endpoint)
		return encap_redirect(context, entry->tunnel_endpoint);
	if (context_untag(context))
		return -DROP_REWRITE;
	if (context_write_macs(context, entry->pod_mac, entry->host_mac))
		return -DROP_INVALID;
	return context_redirect_pod(context, entry->ifindex);
}

static __always_inline int handle(struct context *context, struct packet *packet, __u32 *policy)
{
	__u64 now = bpf_jiffies64();
	struct nat_entry *reverse, entry;
	struct tuple4 key;

	if (context_parse(context, packet) != PACKET_FLOW)
		/* Only whole TCP, UDP and echo packets are translated, so only they return. */
		return VERDICT_PASS;
	key = packet->tuple;
	key.direction = NAT_REVERSE;
	reverse = bpf_map_lookup_elem(&outgate_snat_v4, &key);
	if (!reverse)
		return VERDICT_PASS;
	if (reverse->flags & NAT_HOST_SOCKET) {
		/* A socket of this node. */
		touch_host_port(reverse, tcp_bits(packet, 1), now);
		return VERDICT_PASS;
	}
	if (!is_live(reverse->last_seen, key.protocol, reverse->tcp, now))
		/* The flow is over; the host answers as for any unknown packet. */
		return VERDICT_PASS;
	*policy = reverse->policy;
	nat_touch_reverse(reverse, packet, now);
	entry = *reverse;
	return reverse_nat(context, packet, &entry);
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	struct context context = { .skb = skb };
	struct packet packet;
	__u32 policy = 0;
	int verdict = handle(&context, &packet, &policy);

	if (verdict == VERDICT_PASS)
		return verdict;
	count(verdict < 0 ? -verdict : FORWARDED, DIRECTION_TO_POD, policy, skb->len);
	return verdict < 0 ? VERDICT_DROP : verdict;
}

char _license[] SEC("license") = "GPL";
