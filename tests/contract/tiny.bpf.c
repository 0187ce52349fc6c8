/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A datapath that passes every packet: the names, maps and settings of the real one.
 * Compiled once per hook with -DHOOK=<name>; the policy map has room for four rows.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MAP(name, kind, key, val, entries, flags)                                      \
	struct {                                                                       \
		__uint(type, kind);                                                    \
		__uint(key_size, key);                                                 \
		__uint(value_size, val);                                               \
		__uint(max_entries, entries);                                          \
		__uint(map_flags, flags);                                              \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                   \
	} name SEC(".maps")

#ifndef EGRESS_ROOM
#define EGRESS_ROOM 4
#endif

MAP(cilium_egress_v4, BPF_MAP_TYPE_LPM_TRIE, 12, 16, EGRESS_ROOM, BPF_F_NO_PREALLOC);
MAP(outgate_covered_v4, BPF_MAP_TYPE_LPM_TRIE, 8, 4, 64, BPF_F_NO_PREALLOC);
MAP(cilium_lxc, BPF_MAP_TYPE_HASH, 20, 48, 64, 0);
MAP(cilium_ipcache, BPF_MAP_TYPE_LPM_TRIE, 24, 12, 16384, BPF_F_NO_PREALLOC);
MAP(outgate_node_v4, BPF_MAP_TYPE_HASH, 4, 4, 64, 0);
MAP(outgate_config, BPF_MAP_TYPE_ARRAY, 4, 16, 1, 0);
MAP(outgate_flow_v4, BPF_MAP_TYPE_LRU_HASH, 16, 40, 64, 0);
MAP(outgate_snat_v4, BPF_MAP_TYPE_LRU_HASH, 16, 48, 64, 0);
MAP(outgate_metrics, BPF_MAP_TYPE_PERCPU_HASH, 8, 16, 64, 0);

const volatile struct {
	__u32 words[7];
} settings SEC(".rodata.settings") = {};

SEC("tc")
int HOOK(struct __sk_buff *skb)
{
	return settings.words[0];
}

char _license[] SEC("license") = "GPL";
