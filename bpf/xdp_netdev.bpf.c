// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * xdp-netdev: what arrives from the wire, before the kernel makes a packet of it.
 *
 * Everything goes on to tc as it came (XDP_PASS).
 */
#include "include/config.h"
#include "include/ip.h"

SEC("xdp.frags")
int FAMILY(xdp_netdev)(struct xdp_md *xdp)
{
#if OUTGATE_FAMILY == 4
	bpf_tail_call(xdp, &outgate_xdp, XDP_PROGRAM_IPV6);
#else
	(void)xdp;
#endif
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
