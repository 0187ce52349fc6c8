/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Why a packet went on or was dropped, and counting it.
 *
 * The numbers are append-only: users' dashboards hold them. Each line's comment is the
 * reason's meaning, and is what the documentation and the CLI print.
 */
#ifndef OUTGATE_VERDICT_H
#define OUTGATE_VERDICT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "types.h"

enum reason {
	FORWARDED = 0, /* sent on by us: tunnelled, translated, or delivered to its pod */
	DROP_INVALID = 1, /* a header is cut short or contradicts itself */
	DROP_UNKNOWN_POD = 2, /* source is a pod not known yet, destination is covered */
	DROP_NO_GATEWAY = 3, /* the policy has no gateway node now */
	DROP_NO_EGRESS_IP = 4, /* the gateway node does not have the policy's egress IP */
	DROP_UNSUPPORTED_PROTOCOL = 5, /* covered, and neither TCP, UDP, SCTP nor ICMP */
	DROP_UNSUPPORTED_ICMP = 6, /* covered ICMP other than echo and errors */
	DROP_FRAGMENT = 7, /* covered part of a datagram that is not known */
	DROP_TTL_EXCEEDED = 8, /* the packet may not travel further */
	DROP_FLOW_TABLE_FULL = 9, /* no room for a flow entry */
	DROP_NAT_TABLE_FULL = 10, /* no room for a NAT entry */
	DROP_SNAT_NO_PORT = 11, /* every port towards this destination is taken */
	DROP_NO_ROUTE = 12, /* the gateway node has no route to the destination */
	DROP_UNKNOWN_TUNNEL_SOURCE = 13, /* tunnelled from an address that is no node's */
	DROP_NO_FLOW = 14, /* tunnelled to a pod that did not start this flow here */
	DROP_NO_POLICY = 15, /* tunnelled to this gateway without a policy row for it */
	DROP_UNTRANSLATED = 16, /* guard: covered, and about to leave untranslated */
	DROP_NO_TUNNEL = 17, /* the tunnel device is missing or refused the packet */
	DROP_REWRITE = 18, /* the kernel refused to change the packet */
	DROP_HOST_PORT_TAKEN = 19, /* a socket of the node chose a port that a pod's flow has */
	DROP_FORGED_POD = 20, /* tunnelled from a node that does not hold the source pod */
	DROP_UNSEEN_POD = 21, /* guard: covered, and from_container never saw it */
	DROP_ICMP_NO_FLOW = 22, /* covered ICMP error that speaks of no flow of its pod */
	DROP_TOO_BIG = 23, /* too big for the tunnel, with DF set: its sender is told */
	OTHER_FAMILY = 24, /* left alone: its pod is selected in the other IP family */
	DROP_OTHER_FAMILY = 25, /* the same, and the setting other-family says drop */
	FRAGMENT_HELD = 26, /* a part before its datagram's first: held until that comes */
	DROP_FORGED_TUNNEL = 27, /* from a pod as a node, or to a node's tunnel port */
	DROP_OTHER_INTERFACE = 28, /* covered, from a pod's address behind another interface */
	DROP_WRONG_ENTRY = 29, /* a full table gave the flow's entry away meanwhile */
};

/* Counting must not change a verdict: a full metrics map loses counts, never packets. */
static __always_inline void count_row(__u8 reason, __u8 direction, __u32 policy, __u32 bytes)
{
	struct metric_key key = { .reason = reason, .direction = direction, .policy = policy };
	struct metric_value *value = bpf_map_lookup_elem(&outgate_metrics, &key);

	if (value) {
		value->packets += 1;
		value->bytes += bytes;
		return;
	}
	struct metric_value first = { .packets = 1, .bytes = bytes };

	/* ANY: where another CPU made the row meanwhile, this writes only this CPU's part. */
	bpf_map_update_elem(&outgate_metrics, &key, &first, BPF_ANY);
}

/*
 * Count a packet. One that was sent on counts in its policy's slot of an array; a policy whose
 * slot another one has here counts in the hash, as does everything else. A policy may have
 * counts in both, which are added up by who reads them.
 */
static __always_inline void count(__u8 reason, __u8 direction, __u32 policy, __u32 bytes)
{
	__u32 slot = policy % FORWARDED_SLOTS;
	struct forwarded_value *forwarded;

	if (reason != FORWARDED || !policy) {
		count_row(reason, direction, policy, bytes);
		return;
	}
	forwarded = bpf_map_lookup_elem(&outgate_forwarded, &slot);
	if (forwarded && !forwarded->policy)
		forwarded->policy = policy;
	if (!forwarded || forwarded->policy != policy) {
		count_row(reason, direction, policy, bytes);
		return;
	}
	if (direction == DIRECTION_TO_POD) {
		forwarded->packets_to_pod += 1;
		forwarded->bytes_to_pod += bytes;
	} else {
		forwarded->packets_to_world += 1;
		forwarded->bytes_to_world += bytes;
	}
}

#endif
