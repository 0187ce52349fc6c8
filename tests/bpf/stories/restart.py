"""An agent that starts again: it loads programs anew over the maps that are pinned."""

import os
import sys

from bpf.harness import Node
from outgate.kernel import syscall
from outgate.kernel.objects import load_program
from outgate.state.entries import Family, Hook


def restart(node: Node, hook: Hook, family: Family) -> None:
    """Replace one of *node*'s programs by a fresh one."""
    node.inside(lambda: _replace(node, hook, family))


def _replace(node: Node, hook: Hook, family: Family) -> None:
    old = node._programs[hook, family]
    new = load_program(hook, family, node._pins, node._setup.encode()).fd
    node._programs[hook, family] = new
    os.close(old)
    if hook is Hook.FROM_OVERLAY:
        array = syscall.obj_get(node._pins / f"v{family}" / "program_under_test")
        syscall.map_update(array, bytes(4), new.to_bytes(4, sys.byteorder))
        os.close(array)
