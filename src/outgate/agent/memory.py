"""
Keeps the agent of a large cluster small, and its cycle collector from stalling it.

The tables of a first round are megabytes each and soon replaced by larger ones.  The
C library would keep what they leave, in pieces; here it gives them back at once.

A full collection visits every object that can be in a cycle: with 100,000 pods it
takes longer than a change may take to reach the kernel.  What is known of the cluster
is in no cycle; once it has been listed it is set aside for good.
"""

import ctypes
import gc

NEW_OBJECTS = 100_000
"""How many new containers are made before the collector looks at them; 700 else."""

M_MMAP_THRESHOLD = -3
"""Of ``<malloc.h>``.  Setting it also keeps it from growing with what is freed."""

LARGE_BLOCK = 256 * 1024
"""Bytes from which on a block is the kernel's again once it is freed."""


def expect_many_objects() -> None:
    """Let the collector look less often; call before the cluster is listed."""
    gc.set_threshold(NEW_OBJECTS, 10, 10)
    # Another C library than glibc may not have it, and does without.
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def set_aside() -> None:
    """Take all objects that live now out of the collector's sight."""
    gc.collect()
    gc.freeze()
