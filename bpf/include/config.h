/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Settings that the loader fills before it loads an object; the verifier sees constants. */
#ifndef OUTGATE_CONFIG_H
#define OUTGATE_CONFIG_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "types.h"

/* In a section of its own, so that the loader can write it whole, by its section's name. */
const volatile struct settings settings SEC(".rodata.settings") = {};

/* What may change while programs run. Return NULL never, but the verifier wants to be told. */
static __always_inline const struct runtime_config *runtime_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&outgate_config, &zero);
}

#endif
