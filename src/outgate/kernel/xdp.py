"""
The XDP programs of an interface: the one that is attached, and the other family's.

An interface has one XDP program, IPv4's; it goes on with IPv6's through a map of
programs.  Here that map is filled; ``kernel.datapath`` loads the programs, and what
they may send out of is in ``outgate_xdp_device``.
"""

from pathlib import Path

from outgate.kernel.layouts import XDP_PROGRAM
from outgate.kernel.maps import MapName
from outgate.kernel.objects import Pair
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import Family

IPV6 = 0
"""``XDP_PROGRAM_IPV6``."""


def join_families(pin_dir: Path, pair: Pair) -> None:
    """
    Let the IPv4 program of *pair* go on with the IPv6 one; KernelError where refused.

    One that is attached goes on with it from now on too.
    """
    program = pair[Family.V6].fd
    with PinnedMap(pin_dir / MapName.XDP) as table:
        table.put(XDP_PROGRAM.pack(IPV6), XDP_PROGRAM.pack(program))
