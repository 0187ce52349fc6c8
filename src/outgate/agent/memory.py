"""
Keeps Python's cycle collector from stalling the agent of a large cluster.

A full collection visits every object that can be in a cycle: with 100,000 pods it
takes longer than a change may take to reach the kernel.  What is known of the cluster
is in no cycle; once it has been listed it is set aside for good.
"""

import gc

NEW_OBJECTS = 100_000
"""How many new containers are made before the collector looks at them; 700 else."""


def expect_many_objects() -> None:
    """Let the collector look less often; call before the cluster is listed."""
    gc.set_threshold(NEW_OBJECTS, 10, 10)


def set_aside() -> None:
    """Take all objects that live now out of the collector's sight."""
    gc.collect()
    gc.freeze()
