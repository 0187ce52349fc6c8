/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every structure that is shared with Python (src/outgate/kernel/layouts.py).
 *
 * Byte order: addresses and fields of type __be16 are in network order, all others in
 * the host's. Sizes are asserted below, and offsets by a Python test.
 */
#ifndef OUTGATE_TYPES_H
#define OUTGATE_TYPES_H

#include <linux/types.h>

#include "family.h"

#define ETH_ADDRESS_SIZE 6

#if OUTGATE_FAMILY == 4
#define ADDRESS_WORDS 1
#else
#define ADDRESS_WORDS 4
#endif

#define ADDRESS_BITS (32 * ADDRESS_WORDS)

/*
 * An address of the family that this object is compiled for. As a tunnel endpoint in a row
 * of IPv6 it may be IPv4-mapped (::ffff:a.b.c.d): the outer header is IPv4 then. All zero
 * where there is none.
 */
struct ip_address {
	__be32 word[ADDRESS_WORDS];
};

/* An address of either family in a map that both share; IPv4 has the first word. */
struct any_address {
	__be32 word[4];
};

/* ---- cilium_egress: LPM trie ----------------------------------------------------------------- */

enum policy_kind {
	POLICY_GATEWAY = 1,
	POLICY_EXCLUDED = 2,
	POLICY_NO_GATEWAY = 3,
	POLICY_NO_EGRESS_IP = 4,
};

/* prefix_len counts the bits of source too: a /16 destination is 48 (IPv6: 144). */
struct egress_key {
	__u32 prefix_len;
	struct ip_address source;
	struct ip_address destination;
};

struct egress_value {
	struct ip_address egress_ip;
	struct ip_address tunnel_endpoint;
	__u32 policy;
	__u8 kind; /* enum policy_kind */
	__u8 pad[3];
};

/* ---- outgate_source: hash, and outgate_set: LPM trie; the same rows, by sets ----------------- */

/* address is the key again: an entry that is removed may become another address's at once. */
struct source_value {
	struct ip_address address;
	__u32 set; /* never 0 */
};

/* prefix_len counts the 32 bits of set too; the value is a struct egress_value. */
struct set_key {
	__u32 prefix_len;
	__u32 set;
	struct ip_address destination;
};

/* ---- outgate_covered: LPM trie of the networks that any policy covers ------------------------ */

struct network_key {
	__u32 prefix_len;
	struct ip_address address;
};

struct covered_value {
	__u32 policy;
};

/* ---- cilium_lxc: hash, the layout that users' tools know ------------------------------------- */

#define FAMILY_IPV4 1
#define FAMILY_IPV6 2

#define ENDPOINT_HOST 1
#define ENDPOINT_POD 2

#define ROLE_EGRESS_IP 1 /* policies use this host address as an egress IP */
#define ROLE_OTHER_FAMILY 2 /* policies select this pod, in the other family alone */
#define ROLE_SELECTED 4 /* this pod has rows in this family */

struct endpoint_key {
	struct any_address address;
	__u8 family; /* FAMILY_* */
	__u8 pad[3];
};

struct endpoint {
	__u32 ifindex; /* of a pod: where its first packet came from; 0 before that */
	__u32 owner;   /* of a pod: which one has the address, as the control plane counts */
	__u32 flags; /* ENDPOINT_* */
	__u32 roles; /* ROLE_* */
	__u8 pad2[32];
};

/* ---- cilium_ipcache: LPM trie, the layout that users' tools know ----------------------------- */

#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_CLUSTER 3
#define IDENTITY_REMOTE_NODE 6

/* prefix_len counts the 32 bits before the address: a /24 network is 56. */
struct ipcache_key {
	__u32 prefix_len;
	__u8 pad[3];
	__u8 family; /* FAMILY_* */
	struct any_address address;
};

#define IPCACHE_ENDPOINT_IPV6 4

struct ipcache_value {
	__u32 identity;
	struct any_address tunnel_endpoint;
	__u16 pad;
	__u8 key; /* always 0: nothing is encrypted by us */
	__u8 flags; /* IPCACHE_* */
};

/* ---- outgate_node: hash, address -> flags; its keys are the tunnel sources that we believe --- */

struct node_value {
	__u32 flags;
};

/* ---- outgate_config: array of one, changed while programs run -------------------------------- */

struct runtime_config {
	__u32 tunnel_ifindex;
	__u16 route_generation; /* changes when routes, own addresses or nodes do */
	__u16 policy_generation; /* changes whenever a policy row does */
	__u8 tunnel_mac[ETH_ADDRESS_SIZE];
	__u16 tunnel_mtu; /* bytes of IP packet that fit the tunnel; 0: not known */
	struct any_address tunnel_source; /* of IPv6 outer headers; none: the kernel chooses */
};

/* ---- section .rodata.settings of every object, filled before load ---------------------------- */

enum gateway_path {
	GATEWAY_DIRECT = 0,
	GATEWAY_STACK = 1,
};

enum existing_flows {
	FLOWS_KEEP = 0, /* a flow keeps what was decided for it */
	FLOWS_REDECIDE = 1, /* a change of policy decides every flow anew */
};

enum other_family {
	OTHER_FAMILY_PASS = 0,
	OTHER_FAMILY_DROP = 1,
};

enum tunnel_way {
	TUNNEL_AUTO = 0, /* tc adds and removes outer headers where it can */
	TUNNEL_DEVICE = 1, /* the kernel's VXLAN device does, always */
};

struct settings {
	__u32 tunnel_vni;
	__u32 mark_mask;
	__u32 mark_translated; /* leaves the node as it is */
	__u32 mark_overlay;    /* to-netdev must translate it */
	__u32 mark_seen;       /* from-container let it pass */
	__u32 jiffies_per_second;
	__u16 port_first; /* inclusive */
	__u16 port_last;  /* inclusive */
	__u8 gateway_path; /* enum gateway_path */
	__u8 existing_flows; /* enum existing_flows */
	__u8 other_family; /* enum other_family: of pods with ROLE_OTHER_FAMILY */
	__u8 tunnel_way; /* enum tunnel_way */
	__u16 tunnel_port; /* UDP; 0: pods may send to it */
	__u16 port_inverse; /* place_of_port() of port.h: of PORT_STRIDE, modulo the range's size */
};

/* ---- outgate_flow: LRU hash ------------------------------------------------------------------ */

/*
 * A tuple as its sender writes it. For ICMP echo the identifier is the port of the side
 * that asks, and the other side's port is 0.
 */
struct tuple {
	struct ip_address source;
	struct ip_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 direction; /* enum nat_direction in outgate_snat, else 0 */
	__u8 pad[2];
};

enum flow_decision {
	FLOW_TO_GATEWAY = 1,   /* tunnel to tunnel_endpoint */
	FLOW_LOCAL_GATEWAY = 2, /* this node is the gateway */
	FLOW_INBOUND = 3,      /* it began outside: replies are left alone */
	FLOW_FROM_TUNNEL = 4,  /* on a gateway with path "stack": replies go to tunnel_endpoint */
};

/* Keyed by the tuple as the pod writes it, whichever side began. */
struct flow_entry {
	__u8 decision; /* enum flow_decision */
	__u8 tcp;      /* TCP_* bits */
	__u16 generation; /* of the policy rows that decided */
	__u32 policy;
	struct ip_address tunnel_endpoint;
	struct ip_address egress_ip;
	__u32 ifindex; /* host side of the pod's veth */
	__u8 pod_mac[ETH_ADDRESS_SIZE];
	__u8 host_mac[ETH_ADDRESS_SIZE];
	__u64 last_seen; /* jiffies */
};

/* ---- outgate_snat: LRU hash ------------------------------------------------------------------ */

enum nat_direction {
	NAT_FORWARD = 1, /* key: pod -> world; value: egress IP and port */
	NAT_REVERSE = 2, /* key: world -> egress IP; value: pod address and port */
};

#define NAT_HOST_SOCKET 1 /* the port belongs to a socket (or masquerade) of this node */

#define TCP_REPLIED 1  /* something came back */
#define TCP_FIN_FORWARD 2
#define TCP_FIN_REVERSE 4
#define TCP_RESET 8

struct nat_entry {
	struct ip_address address; /* forward: egress IP; reverse: pod */
	__be16 port;
	__u8 tcp;   /* TCP_* bits */
	__u8 flags; /* NAT_* */
	struct ip_address tunnel_endpoint; /* node of the pod; none: this node */
	__u32 policy;
	__u32 ifindex; /* forward: out; reverse: host side of a local pod's veth */
	struct ip_address next_hop; /* forward; none: the kernel looks it up */
	__u16 route_generation;  /* forward: of ifindex and next_hop */
	__u16 policy_generation; /* forward: of the policy rows that decided */
	__u8 to_mac[ETH_ADDRESS_SIZE];   /* forward: of the next hop; reverse: of a local pod */
	__u8 from_mac[ETH_ADDRESS_SIZE]; /* of ifindex; forward: zero while both are not known */
	__u32 seal; /* of the key, address and port, see seal.h */
	__u64 last_seen; /* jiffies */
};

/* ---- outgate_ports: LRU hash ----------------------------------------------------------------- */

/* Whom ports are searched for, where they are scarce. */
struct ports_key {
	struct ip_address server;
	struct ip_address egress_ip;
	__be16 server_port;
	__u16 first; /* of the range; a node with another range begins anew */
	__u16 last;
	__u8 protocol;
	__u8 pad;
};

#define PORT_WORDS 1024 /* a bit for each of 65536 ports */

/* Places are ports in the order of the search, see port.h. */
struct ports_value {
	__u64 taken[PORT_WORDS]; /* bit n: the port at place n was found taken, and may still be */
	__u32 checked; /* so many places were tried in this round, whatever their bits say */
	__u32 pad;
	__u64 round; /* jiffies when it began */
};

/* ---- outgate_frag: LRU hash ------------------------------------------------------------------ */

/* One datagram that came in parts. */
struct fragment_key {
	struct ip_address source;
	struct ip_address destination;
	__u32 id; /* network order */
	__u8 protocol; /* IPv4; in IPv6 0 */
	__u8 pad[3];
};

enum fragment_state {
	FRAGMENT_UNKNOWN = 0, /* its first part has not come yet */
	FRAGMENT_KNOWN = 1, /* the ports are those of its first part */
	FRAGMENT_NOT_OURS = 2, /* it is the node's own: left alone */
};

struct fragment_value {
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol; /* what the first part carries */
	__u8 state; /* enum fragment_state */
	__u8 is_awaited; /* parts wait for the first */
	__u8 pad;
	__u64 last_seen; /* jiffies */
};

/* ---- outgate_garbage: queue of flows, to be looked at when they are due ---------------------- */

enum garbage_kind {
	GARBAGE_FLOW = 1,
	GARBAGE_NAT = 2,
};

struct garbage_item {
	struct tuple tuple; /* as the pod, or the node's socket, writes it */
	struct ip_address egress_ip; /* with port: what a translation made of it */
	__be16 port;
	__u8 kind; /* enum garbage_kind */
	__u8 pad;
	__u64 due; /* jiffies */
};

/* ---- outgate_events: ring buffer ------------------------------------------------------------- */

enum event_kind {
	EVENT_FLOW_OPENED = 1,
	EVENT_FLOW_CLOSED = 2,
	EVENT_NAT_MADE = 3,
	EVENT_NAT_RELEASED = 4,
	EVENT_DROP = 5,
};

struct event {
	__u64 time; /* nanoseconds, CLOCK_MONOTONIC */
	__u8 kind; /* enum event_kind */
	__u8 family; /* FAMILY_* */
	__u8 direction; /* enum metric_direction */
	__u8 reason; /* of a drop: enum reason, verdict.h */
	__u32 policy; /* 0: none known */
	struct any_address source;
	struct any_address destination;
	struct any_address translated; /* egress IP; none where it does not apply */
	__be16 source_port;
	__be16 destination_port;
	__be16 translated_port;
	__u8 protocol;
	__u8 decision; /* of a flow: enum flow_decision */
};

/* ---- outgate_metrics: per-CPU hash ----------------------------------------------------------- */

enum metric_direction {
	DIRECTION_TO_WORLD = 1,
	DIRECTION_TO_POD = 2,
};

struct metric_key {
	__u8 reason; /* enum reason, verdict.h */
	__u8 direction;
	__u8 pad[2];
	__u32 policy; /* 0: none known */
};

struct metric_value {
	__u64 packets;
	__u64 bytes;
};

/* ---- outgate_forwarded: per-CPU array -------------------------------------------------------- */

#define FORWARDED_SLOTS 1024

/* Slot number: the policy's number modulo FORWARDED_SLOTS. On each CPU the first policy has it. */
struct forwarded_value {
	__u32 policy; /* 0: nobody's yet */
	__u32 pad;
	__u64 packets_to_world;
	__u64 bytes_to_world;
	__u64 packets_to_pod;
	__u64 bytes_to_pod;
};

/* ---- outgate_free: array --------------------------------------------------------------------- */

#define FREE_SHIFT 12
#define FREE_WORDS (1U << (32 - FREE_SHIFT - 6))

/* A bit for each address, by its hash: 1 where nothing is known of it; see free.h. */
struct free_value {
	__u64 bits;
};

/* ---- outgate_xdp_device: hash, ifindex -> an interface that XDP may send out of -------------- */

struct xdp_device {
	__u32 mtu; /* bytes of IP packet */
	__u8 is_veth;
	__u8 pad[3];
};

/* ---- outgate_xdp: the programs that the one of an interface goes on with --------------------- */

enum xdp_program {
	XDP_PROGRAM_IPV6 = 0,
};

/* IPv4's size, and what IPv6's addresses add. */
#define ASSERT_SIZE(type, size, more) \
	_Static_assert(sizeof(struct type) == (size) + (OUTGATE_FAMILY == 6 ? (more) : 0), "size")

ASSERT_SIZE(egress_key, 12, 24);
ASSERT_SIZE(egress_value, 16, 24);
ASSERT_SIZE(network_key, 8, 12);
ASSERT_SIZE(covered_value, 4, 0);
ASSERT_SIZE(endpoint_key, 20, 0);
ASSERT_SIZE(endpoint, 48, 0);
ASSERT_SIZE(ipcache_key, 24, 0);
ASSERT_SIZE(ipcache_value, 24, 0);
ASSERT_SIZE(runtime_config, 32, 0);
ASSERT_SIZE(settings, 36, 0);
ASSERT_SIZE(tuple, 16, 24);
ASSERT_SIZE(flow_entry, 40, 24);
ASSERT_SIZE(nat_entry, 56, 32);
ASSERT_SIZE(ports_key, 16, 24);
ASSERT_SIZE(ports_value, 8208, 0);
ASSERT_SIZE(fragment_key, 16, 24);
ASSERT_SIZE(fragment_value, 16, 0);
ASSERT_SIZE(garbage_item, 32, 40);
ASSERT_SIZE(event, 72, 0);
ASSERT_SIZE(metric_key, 8, 0);
ASSERT_SIZE(metric_value, 16, 0);
ASSERT_SIZE(forwarded_value, 40, 0);
ASSERT_SIZE(free_value, 8, 0);
ASSERT_SIZE(xdp_device, 8, 0);

#endif
