/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every structure that is shared with Python (src/outgate/kernel/maps.py).
 *
 * Byte order: fields of type __be16 and __be32 are in network order, all others in
 * the host's. Sizes and offsets are asserted below and again by a Python test.
 */
#ifndef OUTGATE_TYPES_H
#define OUTGATE_TYPES_H

#include <linux/types.h>

#include "family.h"

#define ETH_ADDRESS_SIZE 6

/* ---- cilium_egress_v4: LPM trie ---------------------------------------------------- */

enum policy_kind {
	POLICY_GATEWAY = 1,
	POLICY_EXCLUDED = 2,
	POLICY_NO_GATEWAY = 3,
	POLICY_NO_EGRESS_IP = 4,
};

/* prefix_len counts the 32 bits of source: a /16 destination is 48. */
struct egress_key {
	__u32 prefix_len;
	__be32 source;
	__be32 destination;
};

struct egress_value {
	__be32 egress_ip;
	__be32 tunnel_endpoint;
	__u32 policy;
	__u8 kind; /* enum policy_kind */
	__u8 pad[3];
};

/* ---- outgate_covered_v4: LPM trie of the networks that any policy covers ------------- */

struct network_key {
	__u32 prefix_len;
	__be32 address;
};

struct covered_value {
	__u32 policy;
};

/* ---- cilium_lxc: hash, the layout that users' tools know ----------------------------- */

#define FAMILY_IPV4 1

#define ENDPOINT_HOST 1
#define ENDPOINT_POD 2

#define ROLE_EGRESS_IP 1

struct endpoint_key {
	__be32 address;
	__u8 pad1[12];
	__u8 family;
	__u8 pad2[3];
};

struct endpoint {
	__u32 ifindex; /* always 0 today: the way to a pod is learned from its flows */
	__u32 pad1;
	__u32 flags; /* ENDPOINT_* */
	__u32 roles; /* ROLE_*: what the datapath does with a host address */
	__u8 pad2[32];
};

/* ---- cilium_ipcache: LPM trie, the layout that users' tools know --------------------- */

#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_CLUSTER 3
#define IDENTITY_REMOTE_NODE 6

/* prefix_len counts the 32 bits before the address: a /24 network is 56. */
struct ipcache_key {
	__u32 prefix_len;
	__u8 pad1[3];
	__u8 family;
	__be32 address;
	__u8 pad2[12];
};

struct ipcache_value {
	__u32 identity;
	__be32 tunnel_endpoint;
	__u32 pad;
};

/* ---- outgate_node_v4: hash __be32 -> flags; its keys are the tunnel sources we believe -- */

struct node_value {
	__u32 flags;
};

/* ---- outgate_config: array of one, changed while programs run ------------------------ */

struct runtime_config {
	__u32 tunnel_ifindex;
	__u32 route_generation; /* changes whenever routes or neighbours' devices do */
	__u8 tunnel_mac[ETH_ADDRESS_SIZE];
	__u16 tunnel_mtu; /* bytes of IP packet that fit the tunnel; 0: not known */
};

/* ---- section .rodata.settings of every object, filled before load --------------------- */

enum gateway_path {
	GATEWAY_DIRECT = 0,
	GATEWAY_STACK = 1,
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
	__u8 pad[3];
};

/* ---- outgate_flow_v4: LRU hash ----------------------------------------------------------- */

/*
 * A tuple as its sender writes it. For ICMP echo the identifier is the port of the side
 * that asks, and the other side's port is 0.
 */
struct tuple4 {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 direction; /* enum nat_direction in outgate_snat_v4, else 0 */
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
	__u8 pad[2];
	__u32 policy;
	__be32 tunnel_endpoint;
	__be32 egress_ip;
	__u32 ifindex; /* host side of the pod's veth */
	__u8 pod_mac[ETH_ADDRESS_SIZE];
	__u8 host_mac[ETH_ADDRESS_SIZE];
	__u64 last_seen; /* jiffies */
};

/* ---- outgate_snat_v4: LRU hash -------------------------------------------------------------- */

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
	__be32 address; /* forward: egress IP; reverse: pod */
	__be16 port;
	__u8 tcp;   /* TCP_* bits */
	__u8 flags; /* NAT_* */
	__be32 tunnel_endpoint; /* node of the pod; 0: this node */
	__u32 policy;
	__u32 ifindex; /* forward: out; reverse: host side of a local pod's veth */
	__be32 next_hop;         /* forward; 0: the kernel looks it up */
	__u32 route_generation;  /* forward: of ifindex and next_hop */
	__u8 pod_mac[ETH_ADDRESS_SIZE];  /* reverse, local pod */
	__u8 host_mac[ETH_ADDRESS_SIZE]; /* reverse, local pod */
	__u64 last_seen; /* jiffies */
};

/* ---- outgate_metrics: per-CPU hash -------------------------------------------------------------- */

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

_Static_assert(sizeof(struct egress_key) == 12, "size");
_Static_assert(sizeof(struct egress_value) == 16, "size");
_Static_assert(sizeof(struct network_key) == 8, "size");
_Static_assert(sizeof(struct covered_value) == 4, "size");
_Static_assert(sizeof(struct endpoint_key) == 20, "size");
_Static_assert(sizeof(struct endpoint) == 48, "size");
_Static_assert(sizeof(struct ipcache_key) == 24, "size");
_Static_assert(sizeof(struct ipcache_value) == 12, "size");
_Static_assert(sizeof(struct runtime_config) == 16, "size");
_Static_assert(sizeof(struct settings) == 32, "size");
_Static_assert(sizeof(struct tuple4) == 16, "size");
_Static_assert(sizeof(struct flow_entry) == 40, "size");
_Static_assert(sizeof(struct nat_entry) == 48, "size");
_Static_assert(sizeof(struct metric_key) == 8, "size");
_Static_assert(sizeof(struct metric_value) == 16, "size");

#endif
