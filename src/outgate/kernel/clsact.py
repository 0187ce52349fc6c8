"""
Classifiers: attach programs to an interface where the kernel has no tcx (before 6.6).

A hook has a filter for each IP family on the interface's clsact qdisc, in direct-action
mode.  It is known again by its handle and name, and tells which program it runs, so no
file remembers it; it lives until it is removed or its interface goes, agent or not.
Replacing its program leaves no gap.

Filters match every protocol, as tcx does: one for IP only would not see a frame with
a priority tag (VLAN 0), which the stack takes as if it had none.  A program that is not
concerned says TC_ACT_UNSPEC, which goes on to the next filter.

Only filters of ours are touched; a qdisc goes when nobody has a filter on it any more.

Source: Linux ``include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h``.
"""

import errno
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from struct import Struct

from outgate.errors import KernelError
from outgate.kernel.hooks import SIDES, Attached, AttachWay, Side
from outgate.kernel.objects import Pair, program_name
from outgate.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    RouteSocket,
    attributes,
    parse_attributes,
)
from outgate.state.entries import AttachmentKey, Family, Hook

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

TCMSG = Struct("=4xiIII")
"""``struct tcmsg``: interface, handle, parent, and priority with protocol."""

TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_ID = 6, 7, 8, 11
ACT_DIRECT = 1

QDISC_HANDLE, QDISC_PARENT = 0xFFFF0000, 0xFFFFFFF1
PARENTS = {Side.INGRESS: 0xFFFFFFF2, Side.EGRESS: 0xFFFFFFF3}
"""Handle and parent of clsact, and where filters of either side hang."""

SEEN_SIDES = {"clsact": frozenset(Side), "ingress": frozenset({Side.INGRESS})}
"""
What filters on a qdisc see, by its kind; others may have left an ``ingress``.

The kernel takes a filter for egress there, and runs it on what comes in.
"""

ALL_PROTOCOLS = socket.htons(0x0003)
"""ETH_P_ALL, network order."""

PRIORITIES = {Family.V4: 100, Family.V6: 101}
"""After what others put first, before what the kernel numbers itself (from 49152)."""

HANDLES = {hook: 0x6F750001 + number for number, hook in enumerate(SIDES)}
"""A filter's number among those of its priority; others choose small ones."""

NAMES = {
    f"outgate_{program_name(hook, family)}": (hook, family)
    for hook in SIDES
    for family in Family
}


@dataclass(frozen=True, slots=True)
class _Filter:
    """A filter of anybody's; *name* and *program_id* are those of a BPF program."""

    ifindex: int
    handle: int
    name: str
    program_id: int

    @property
    def place(self) -> tuple[Hook, Family] | None:
        """Return where it belongs, None if it is not ours."""
        place = NAMES.get(self.name)
        return place if place and self.handle == HANDLES[place[0]] else None


def observe_filters() -> tuple[Attached, ...]:
    """Return every filter of ours in this network namespace."""
    with _translated("observe classifiers"), RouteSocket() as route:
        return tuple(
            Attached(key, AttachWay.CLSACT, place[1], found.program_id, ifindex)
            for ifindex, sides in _seen_sides(route).items()
            for side in sides
            for found in _filters(route, ifindex, side)
            if (place := found.place) and SIDES[place[0]] is side
            if (key := _key(ifindex, place[0]))
        )


def attach(key: AttachmentKey, ifindex: int, programs: Pair) -> None:
    """
    Make *programs* run at *key*: in place where filters of ours are, else by new ones.

    Errors: KernelError; ENODEV when the interface has just gone.
    """
    operation = f"attach {key.hook} on {key.interface}"
    with _translated(operation), RouteSocket() as route:
        _add_qdisc(route, ifindex)
        if SIDES[key.hook] not in _seen_sides(route).get(ifindex, Side):
            mend = f"tc qdisc del dev {key.interface} ingress"
            detail = f"its qdisc ingress sees nothing that leaves; {mend}"
            raise KernelError(operation, errno.EEXIST, detail)
        for family in Family:
            taken = f"does another's filter have priority {PRIORITIES[family]} there?"
            with _translated(operation, {errno.EINVAL: taken}):
                _put_filter(route, ifindex, key.hook, programs[family].fd, family)


def detach(key: AttachmentKey) -> None:
    """Remove the filters at *key*, and the qdisc unless somebody else uses it."""
    operation = f"detach {key.hook} from {key.interface}"
    with _translated(operation), RouteSocket() as route:
        try:
            ifindex = socket.if_nametoindex(key.interface)
        except OSError:
            # Gone, and its filters with it.
            return
        places = [f.place for f in _filters(route, ifindex, SIDES[key.hook])]
        ours = [place[1] for place in places if place and place[0] is key.hook]
        for family in ours:
            message = _filter_message(ifindex, key.hook, family)
            _ignoring_absence(route, RTM_DELTFILTER, message)
        if ours and not any(list(_filters(route, ifindex, side)) for side in Side):
            message = TCMSG.pack(ifindex, QDISC_HANDLE, QDISC_PARENT, 0)
            _ignoring_absence(route, RTM_DELQDISC, message)


@contextmanager
def _translated(
    operation: str, details: Mapping[int, str] | None = None
) -> Iterator[None]:
    """Name *operation* in errors; *details* are by errno."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        raise KernelError(operation, number, (details or {}).get(number, "")) from error


def _key(ifindex: int, hook: Hook) -> AttachmentKey | None:
    try:
        return AttachmentKey(socket.if_indextoname(ifindex), hook)
    except OSError:
        # It went while we looked.
        return None


def _seen_sides(route: RouteSocket) -> dict[int, frozenset[Side]]:
    """Return the interfaces that may have filters of ours, and what these see."""
    found = {}
    try:
        for content in route.dump(RTM_GETQDISC, TCMSG.pack(0, 0, 0, 0)):
            ifindex, *_ = TCMSG.unpack_from(content)
            kind = _text(parse_attributes(content[TCMSG.size :]).get(TCA_KIND, b""))
            if kind in SEEN_SIDES:
                found[ifindex] = SEEN_SIDES[kind]
    except OSError as error:
        # A kernel without traffic control has no filters either.
        if error.errno != errno.EOPNOTSUPP:
            raise
    return found


def _filters(route: RouteSocket, ifindex: int, side: Side) -> Iterator[_Filter]:
    """Yield all filters on one side of an interface, whoever's they are."""
    request = TCMSG.pack(ifindex, 0, PARENTS[side], 0)
    for content in route.dump(RTM_GETTFILTER, request):
        _, handle, *_ = TCMSG.unpack_from(content)
        found = parse_attributes(content[TCMSG.size :])
        options = parse_attributes(found.get(TCA_OPTIONS, b""))
        name = _text(options.get(TCA_BPF_NAME, b""))
        number = int.from_bytes(options.get(TCA_BPF_ID, b""), sys.byteorder)
        yield _Filter(ifindex, handle, name, number)


def _add_qdisc(route: RouteSocket, ifindex: int) -> None:
    message = TCMSG.pack(ifindex, QDISC_HANDLE, QDISC_PARENT, 0)
    try:
        route.change(
            RTM_NEWQDISC,
            NLM_F_CREATE | NLM_F_EXCL,
            message + attributes({TCA_KIND: b"clsact\0"}),
        )
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise


def _put_filter(
    route: RouteSocket, ifindex: int, hook: Hook, program: int, family: Family
) -> None:
    """Make the one filter run *program*; it is replaced in place if it is there."""
    options = attributes(
        {
            TCA_BPF_FD: program.to_bytes(4, sys.byteorder),
            TCA_BPF_NAME: f"outgate_{program_name(hook, family)}\0".encode(),
            TCA_BPF_FLAGS: ACT_DIRECT.to_bytes(4, sys.byteorder),
        }
    )
    message = _filter_message(ifindex, hook, family)
    content = message + attributes({TCA_KIND: b"bpf\0", TCA_OPTIONS: options})
    route.change(RTM_NEWTFILTER, NLM_F_CREATE, content)


def _filter_message(ifindex: int, hook: Hook, family: Family) -> bytes:
    info = PRIORITIES[family] << 16 | ALL_PROTOCOLS
    return TCMSG.pack(ifindex, HANDLES[hook], PARENTS[SIDES[hook]], info)


def _ignoring_absence(route: RouteSocket, kind: int, message: bytes) -> None:
    try:
        route.change(kind, 0, message)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
