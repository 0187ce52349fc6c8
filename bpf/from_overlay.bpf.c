// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * from-overlay: what comes out of the tunnel device (ingress): what from-netdev did not
 * take out of the tunnel by itself. What becomes of it: overlay.h.
 */
#include "include/overlay.h"

SEC("tc")
int FAMILY(from_overlay)(struct __sk_buff *skb)
{
	struct context context = { .skb = skb, .work = work_begin() };
	__u8 direction = DIRECTION_TO_WORLD;
	struct ip_address node;
	struct packet *packet;
	__u32 policy = 0;
	int verdict;

	if (!context.work)
		return VERDICT_DROP;
	packet = &context.work->packet;
	context_parse(&context, packet);
	if (packet->class == PACKET_OTHER_FAMILY)
		return VERDICT_NEXT;
	verdict = -DROP_UNKNOWN_TUNNEL_SOURCE;
	if (decap_source(&context, &node))
		verdict = overlay_handle(&context, packet, &node, &policy, &direction);
	return overlay_settle(&context, packet, &node, verdict, direction, policy);
}

char _license[] SEC("license") = "GPL";
