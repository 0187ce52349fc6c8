/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Telling what happened: flows opened and closed, mappings made and released, drops. The
 * ring has room for what nobody has read yet; when it is full, events are lost, packets never.
 */
#ifndef OUTGATE_EVENT_H
#define OUTGATE_EVENT_H

#include "config.h"
#include "maps.h"
#include "verdict.h"
#include "work.h"

/* Drops that each CPU tells of, for each program; the others are only counted. */
#define DROP_EVENTS_PER_SECOND 50

struct drop_sampler {
	__u64 second; /* jiffies at its start */
	__u64 told;
};

/* Not pinned: nothing of it must outlive the program. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct drop_sampler));
	__uint(max_entries, 1);
} drop_samplers SEC(".maps");

/* As it is on the wire: an IPv4-mapped one stays IPv6. The rest of the field is zero. */
static __always_inline void event_address(struct any_address *field,
					  const struct ip_address *address)
{
	__builtin_memcpy(field, address, sizeof(*address));
}

/* Who, to whom, and on whose behalf; what was translated is none until it is said. */
static __always_inline struct event *event_begin(struct work *work, __u8 kind, __u8 direction,
						 const struct tuple *tuple, __u32 policy)
{
	struct event *event = &work->event;

	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_ns();
	event->kind = kind;
	event->direction = direction;
	event->policy = policy;
	event->family = OUTGATE_FAMILY == 4 ? FAMILY_IPV4 : FAMILY_IPV6;
	event_address(&event->source, &tuple->source);
	event_address(&event->destination, &tuple->destination);
	event->source_port = tuple->source_port;
	event->destination_port = tuple->destination_port;
	event->protocol = tuple->protocol;
	return event;
}

/* Readers look at the ring by the clock: waking them for each event costs too much. */
static __always_inline void event_send(const struct event *event)
{
	bpf_ringbuf_output(&outgate_events, (void *)event, sizeof(*event), BPF_RB_NO_WAKEUP);
}

static __always_inline void event_flow(struct work *work, __u8 kind, const struct tuple *tuple,
				       const struct flow_entry *flow)
{
	__u8 direction = flow->decision == FLOW_INBOUND ? DIRECTION_TO_POD : DIRECTION_TO_WORLD;
	struct event *event = event_begin(work, kind, direction, tuple, flow->policy);

	event->decision = flow->decision;
	event_address(&event->translated, &flow->egress_ip);
	event_send(event);
}

/* @tuple as its pod writes it. */
static __always_inline void event_nat(struct work *work, __u8 kind, const struct tuple *tuple,
				      const struct ip_address *egress_ip, __be16 port,
				      __u32 policy)
{
	struct event *event = event_begin(work, kind, DIRECTION_TO_WORLD, tuple, policy);

	event_address(&event->translated, egress_ip);
	event->translated_port = port;
	event_send(event);
}

/* May this CPU tell of one more drop in this second? */
static __always_inline _Bool is_drop_told(void)
{
	__u32 zero = 0;
	struct drop_sampler *sampler = bpf_map_lookup_elem(&drop_samplers, &zero);
	__u64 now = bpf_jiffies64();

	if (!sampler)
		return 0;
	if (now - sampler->second >= settings.jiffies_per_second) {
		sampler->second = now;
		sampler->told = 0;
	}
	return ++sampler->told <= DROP_EVENTS_PER_SECOND;
}

static __always_inline void event_drop(struct work *work, __u8 reason, __u8 direction,
				       const struct tuple *tuple, __u32 policy)
{
	struct event *event;

	if (!is_drop_told())
		return;
	event = event_begin(work, EVENT_DROP, direction, tuple, policy);
	event->reason = reason;
	event_send(event);
}

#endif
