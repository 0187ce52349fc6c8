/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The IP family is a parameter of compilation: each hook is compiled once with
 * OUTGATE_FAMILY 4 and once with 6, from one source. Names and numbers that differ are
 * here, addresses in address.h, headers in ip.h.
 */
#ifndef OUTGATE_FAMILY_H
#define OUTGATE_FAMILY_H

/* FAMILY(name): the program or map of the family that this object is for. */
#if OUTGATE_FAMILY == 4
#define FAMILY(name) name##_v4
#elif OUTGATE_FAMILY == 6
#define FAMILY(name) name##_v6
#else
#error "compile with -DOUTGATE_FAMILY=4 or 6"
#endif

#endif
