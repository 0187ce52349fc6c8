/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A datapath that passes every packet and counts probes: names, maps and settings of the real one.
 * Compiled with -DHOOK=<name> and -DOUTGATE_FAMILY, twice per hook; the policy map has room for
 * four rows.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
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
#ifndef EGRESS_VALUE
#define EGRESS_VALUE 16
#endif
#ifndef SET_ROOM
#define SET_ROOM 8
#endif
#ifndef COVERED_ROOM
#define COVERED_ROOM 64
#endif
#ifndef IPCACHE_VALUE
#define IPCACHE_VALUE 24
#endif
#ifndef CONFIG_ROOM
#define CONFIG_ROOM 1
#endif
#ifndef METRICS_ROOM
#define METRICS_ROOM 64
#endif

MAP(cilium_egress_v4, BPF_MAP_TYPE_LPM_TRIE, 12, EGRESS_VALUE, EGRESS_ROOM, BPF_F_NO_PREALLOC);
MAP(cilium_egress_v6, BPF_MAP_TYPE_LPM_TRIE, 36, 40, EGRESS_ROOM, BPF_F_NO_PREALLOC);
MAP(outgate_source_v4, BPF_MAP_TYPE_HASH, 4, 8, 64, BPF_F_NO_PREALLOC);
MAP(outgate_source_v6, BPF_MAP_TYPE_HASH, 16, 20, 64, BPF_F_NO_PREALLOC);
MAP(outgate_set_v4, BPF_MAP_TYPE_LPM_TRIE, 12, EGRESS_VALUE, SET_ROOM, BPF_F_NO_PREALLOC);
MAP(outgate_set_v6, BPF_MAP_TYPE_LPM_TRIE, 24, 40, SET_ROOM, BPF_F_NO_PREALLOC);
MAP(outgate_covered_v4, BPF_MAP_TYPE_LPM_TRIE, 8, 4, COVERED_ROOM, BPF_F_NO_PREALLOC);
MAP(outgate_covered_v6, BPF_MAP_TYPE_LPM_TRIE, 20, 4, 64, BPF_F_NO_PREALLOC);
MAP(cilium_lxc, BPF_MAP_TYPE_HASH, 20, 48, 64, 0);
MAP(cilium_ipcache, BPF_MAP_TYPE_LPM_TRIE, 24, IPCACHE_VALUE, 16384, BPF_F_NO_PREALLOC);
MAP(outgate_node_v4, BPF_MAP_TYPE_HASH, 4, 4, 64, 0);
MAP(outgate_node_v6, BPF_MAP_TYPE_HASH, 16, 4, 64, 0);
MAP(outgate_config, BPF_MAP_TYPE_ARRAY, 4, 32, CONFIG_ROOM, 0);
MAP(outgate_flow_v4, BPF_MAP_TYPE_LRU_HASH, 16, 40, 64, 0);
MAP(outgate_flow_v6, BPF_MAP_TYPE_LRU_HASH, 40, 64, 64, 0);
MAP(outgate_snat_v4, BPF_MAP_TYPE_LRU_HASH, 16, 56, 64, 0);
MAP(outgate_snat_v6, BPF_MAP_TYPE_LRU_HASH, 40, 88, 64, 0);
MAP(outgate_ports_v4, BPF_MAP_TYPE_LRU_HASH, 16, 8208, 64, 0);
MAP(outgate_ports_v6, BPF_MAP_TYPE_LRU_HASH, 40, 8208, 64, 0);
MAP(outgate_frag_v4, BPF_MAP_TYPE_LRU_HASH, 16, 16, 64, 0);
MAP(outgate_frag_v6, BPF_MAP_TYPE_LRU_HASH, 40, 16, 64, 0);
MAP(outgate_garbage_v4, BPF_MAP_TYPE_QUEUE, 0, 32, 64, 0);
MAP(outgate_garbage_v6, BPF_MAP_TYPE_QUEUE, 0, 72, 64, 0);
MAP(outgate_metrics, BPF_MAP_TYPE_PERCPU_HASH, 8, 16, METRICS_ROOM, 0);
MAP(outgate_forwarded, BPF_MAP_TYPE_PERCPU_ARRAY, 4, 40, 1024, 0);
MAP(outgate_free, BPF_MAP_TYPE_ARRAY, 4, 8, 16384, 0);
MAP(outgate_xdp, BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0);
MAP(outgate_xdp_device, BPF_MAP_TYPE_HASH, 4, 8, 64, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} outgate_events SEC(".maps");

const volatile struct {
	__u32 words[9];
} settings SEC(".rodata.settings") = {};

/* Counted as forwarded to a pod; each family's program has a reason of its own. */
static __always_inline void count_probe(struct __sk_buff *skb)
{
	__u64 key = 2 << 8 | OUTGATE_FAMILY, one[2] = { 1, skb->len };
	__u64 *value;

	value = bpf_map_lookup_elem(&outgate_metrics, &key);
	if (!value) {
		bpf_map_update_elem(&outgate_metrics, &key, one, BPF_NOEXIST);
		return;
	}
	value[0] += 1;
	value[1] += skb->len;
}

#ifdef IS_NETFILTER
SEC("netfilter")
int HOOK(void *context)
{
	(void)context;
	return 1; /* NF_ACCEPT */
}
#elif defined(IS_XDP)
SEC("xdp.frags")
int HOOK(struct xdp_md *context)
{
	(void)context;
	return XDP_PASS;
}
#elif defined(IS_COLLECTOR)
#define TIMER2(family) outgate_collector_v##family
#define TIMER(family) TIMER2(family)
MAP(TIMER(OUTGATE_FAMILY), BPF_MAP_TYPE_ARRAY, 4, 48, 1, 0);

SEC("tc")
int HOOK(struct __sk_buff *skb)
{
	(void)skb;
	return 0; /* started */
}
#else
SEC("tc")
int HOOK(struct __sk_buff *skb)
{
	/* The ethertype for experiments (0x88b5); all else is told the settings. */
	if (skb->protocol != __builtin_bswap16(0x88b5))
		return settings.words[0];
	count_probe(skb);
	return TC_ACT_UNSPEC;
}
#endif

char _license[] SEC("license") = "GPL";
