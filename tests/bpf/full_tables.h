/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Put before each program by test_full_tables.py: tables of flows and translations that
 * have room for eight entries, and refuse more. The real ones make room by themselves (LRU).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define BPF_MAP_TYPE_LRU_HASH BPF_MAP_TYPE_HASH
#define IS_TABLE_SIZE(value) ((value) == 1 << 18 || (value) == 1 << 19)

#undef __uint
#define __uint(name, value) int(*name)[IS_TABLE_SIZE(value) ? 8 : (value)]
