/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Room for one packet's work: what is too large for the stack, of which a program has 512
 * bytes. One a CPU; a program is never interrupted by itself there, and finds in it what
 * the packet before left.
 */
#ifndef OUTGATE_WORK_H
#define OUTGATE_WORK_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "parse.h"
#include "quote.h"
#include "types.h"

/* Where a flow's replies must go: learned from the packet that opened it. */
struct origin {
	struct ip_address tunnel_endpoint; /* node of the pod; none: this one, the rest is set */
	__u32 ifindex;
	__u8 pod_mac[ETH_ADDRESS_SIZE];
	__u8 host_mac[ETH_ADDRESS_SIZE];
};

/*
 * A search for a port, see port.h. Verifier: it follows numbers on the stack through each step
 * of a loop, and gives up; here it does not.
 */
struct port_claim {
	__u64 now;
	__u64 flip; /* all ones: places whose bit is clear are tried; zero: those whose is set */
	__u32 start; /* the place to begin at */
	__u32 place; /* the next one to look at */
	__u32 end; /* the first one not to look at */
	int result;
};

struct work {
	struct packet packet;
	struct ip_address node; /* which tunnelled the packet here; of from_netdev alone */
	struct ip_address egress_ip; /* of the packet's translation, once that is known */
	struct origin origin;
	struct quote quote;
	struct flow_entry flow; /* a copy: what decides about the packet */
	struct nat_entry translation; /* a copy: what is written into the packet */
	struct bpf_fib_lookup fib; /* what the kernel is asked of the way to another node */
	_Bool had_translation; /* the flow had one before, which was closed: */
	struct ip_address former_address;
	__be16 former_port;

	/* Rows on their way into maps. */
	struct tuple key;
	struct tuple reply;
	struct ports_key ports;
	struct port_claim claim;
	struct fragment_key datagram;
	struct garbage_item garbage;
	struct event event;
	struct nat_entry forward;
	struct nat_entry reverse;
};

/* Not pinned: nothing of it must outlive the program. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct work));
	__uint(max_entries, 1);
} works SEC(".maps");

/* Return NULL never, but the verifier wants to be told. */
static __always_inline struct work *work_begin(void)
{
	__u32 zero = 0;
	struct work *work = bpf_map_lookup_elem(&works, &zero);

	if (work)
		work->egress_ip = (struct ip_address){};
	return work;
}

#endif
