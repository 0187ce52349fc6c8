/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every map, pinned by name. Key and value are given by size, not by type, so that the
 * kernel's own tool prints them as plain bytes, the way guides to this field show them.
 */
#ifndef OUTGATE_MAPS_H
#define OUTGATE_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

/* (pod, destination network) -> what must happen; also the bytes that users dump. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(key_size, sizeof(struct egress_key));
	__uint(value_size, sizeof(struct egress_value));
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(cilium_egress) SEC(".maps");

/* Pod address -> its set of rows, which is one number for all pods of the same fate. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(key_size, sizeof(struct ip_address));
	__uint(value_size, sizeof(struct source_value));
	__uint(max_entries, 1 << 17);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_source) SEC(".maps");

/* (set, destination network) -> what cilium_egress says for each pod of the set. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(key_size, sizeof(struct set_key));
	__uint(value_size, sizeof(struct egress_value));
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_set) SEC(".maps");

/* Networks that any policy covers: there, a pod that is not known yet is dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(key_size, sizeof(struct network_key));
	__uint(value_size, sizeof(struct covered_value));
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_covered) SEC(".maps");

/* Addresses that live on this node: its own and its pods'. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(key_size, sizeof(struct endpoint_key));
	__uint(value_size, sizeof(struct endpoint));
	__uint(max_entries, 1 << 16);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_lxc SEC(".maps");

/* Which addresses belong to the cluster, and which to the world. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(key_size, sizeof(struct ipcache_key));
	__uint(value_size, sizeof(struct ipcache_value));
	__uint(max_entries, 512000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_ipcache SEC(".maps");

/* Node addresses: the tunnel sources that we believe, by the family of the outer header. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(key_size, sizeof(__be32));
	__uint(value_size, sizeof(struct node_value));
	__uint(max_entries, 1 << 15);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_node_v4 SEC(".maps");

#if OUTGATE_FAMILY == 6
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(key_size, sizeof(struct ip_address));
	__uint(value_size, sizeof(struct node_value));
	__uint(max_entries, 1 << 15);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_node_v6 SEC(".maps");
#endif

/* What may change while programs run: the tunnel device, the generations. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct runtime_config));
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_config SEC(".maps");

/* One entry a flow: what was decided at its first packet. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, sizeof(struct tuple));
	__uint(value_size, sizeof(struct flow_entry));
	__uint(max_entries, 1 << 18);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_flow) SEC(".maps");

/* Two entries a translated flow: forward and reverse tuple -> translation. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, sizeof(struct tuple));
	__uint(value_size, sizeof(struct nat_entry));
	__uint(max_entries, 1 << 19);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_snat) SEC(".maps");

/* Where ports are scarce: which of them a search need not try. Only hints; 4.2 MB. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, sizeof(struct ports_key));
	__uint(value_size, sizeof(struct ports_value));
	__uint(max_entries, 1 << 9);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_ports) SEC(".maps");

/* Datagrams that came in parts -> the ports of their first part. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, sizeof(struct fragment_key));
	__uint(value_size, sizeof(struct fragment_value));
	__uint(max_entries, 1 << 14);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_frag) SEC(".maps");

/* Flows in the order in which somebody must look whether they are over. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(key_size, 0);
	__uint(value_size, sizeof(struct garbage_item));
	__uint(max_entries, 1 << 18);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} FAMILY(outgate_garbage) SEC(".maps");

/* What happened, for whoever reads it. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_events SEC(".maps");

/* (reason, direction, policy) -> packets and bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(key_size, sizeof(struct metric_key));
	__uint(value_size, sizeof(struct metric_value));
	__uint(max_entries, 1 << 14);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_metrics SEC(".maps");

/* The same of packets that were sent on, by a short way; see count(). */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct forwarded_value));
	__uint(max_entries, FORWARDED_SLOTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_forwarded SEC(".maps");

/* Addresses without rows and flows, as the control plane says; see free.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct free_value));
	__uint(max_entries, FREE_WORDS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_free SEC(".maps");

/* An interface has one XDP program, IPv4's: IPv6's is reached through this. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_xdp SEC(".maps");

/* ifindex -> its MTU: where XDP may send. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xdp_device));
	__uint(max_entries, 256);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_xdp_device SEC(".maps");

#endif
