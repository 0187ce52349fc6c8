"""
The program that stands before from-overlay in tests: packets that seem tunnelled.

Compiled once in a process; ``tunnel_source.bpf.c`` says what it does.
"""

import runpy
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from bpf.uplink import command
from outgate.state.entries import Address, Family, family_of

ROOT = Path(__file__).resolve().parent.parent.parent

OUTER_IS_IPV6 = 1 << 31
"""Beside the VNI in the last word of ``cb``: the rest of it is an IPv6 address."""


def tunnel_source(address: Address, vni: int) -> bytes:
    """Return the ``cb`` of a packet that node *address* seems to have tunnelled."""
    if family_of(address) is Family.V6:
        return address.packed + (vni | OUTER_IS_IPV6).to_bytes(4, sys.byteorder)
    words = (int(address), 0, 0, 0, vni)
    return b"".join(word.to_bytes(4, sys.byteorder) for word in words)


@cache
def _folder() -> TemporaryDirectory[str]:
    """Return a folder with the compiled program; it goes when the process does."""
    folder = TemporaryDirectory(prefix="outgate-bpf-")
    compile_wrapper(Path(folder.name) / "tunnel_source.o")
    return folder


def wrapper_object() -> Path:
    """Return where the compiled program lies."""
    return Path(_folder().name) / "tunnel_source.o"


def compile_wrapper(output: Path) -> None:
    """Compile ``tunnel_source.bpf.c`` the way the datapath is compiled."""
    build = runpy.run_path(str(ROOT / "bpf" / "compile.py"))
    source = Path(__file__).with_name("tunnel_source.bpf.c")
    flags = (*build["compiler"](), *build["FLAGS"])
    command(*flags, "-c", str(source), "-o", str(output))
