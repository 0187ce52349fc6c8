/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Settings that the loader fills before it loads an object; the verifier sees constants. */
#ifndef OUTGATE_CONFIG_H
#define OUTGATE_CONFIG_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

/* In a section of its own, so that the loader can write it whole, by its section's name. */
const volatile struct settings settings SEC(".rodata.settings") = {};

#endif
