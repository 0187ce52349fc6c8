/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The one place where a hook's outcome is counted and told. */
#ifndef OUTGATE_SETTLE_H
#define OUTGATE_SETTLE_H

#include "context.h"
#include "event.h"
#include "parse.h"
#include "verdict.h"

/* Count a packet by its verdict, and tell of it where it is dropped; a held part may yet go on. */
static __always_inline void settle(struct context *context, const struct packet *packet,
				   int verdict, __u8 direction, __u32 policy)
{
	count(verdict < 0 ? -verdict : FORWARDED, direction, policy, context->skb->len);
	if (verdict < 0 && verdict != -FRAGMENT_HELD)
		event_drop(context->work, -verdict, direction, &packet->tuple, policy);
}

#endif
