"""The maps of rows without a kernel, and what a program would find in them."""

import errno
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from outgate.errors import KernelError
from outgate.kernel.held import Held
from outgate.kernel.layouts import (
    EGRESS_KEY,
    EGRESS_VALUE,
    SET_KEY,
    SOURCE_KEY,
    SOURCE_VALUE,
    Layout,
)
from outgate.kernel.maps import EGRESS, decode_policy_value, decode_row
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.policysets import PolicySets
from outgate.kernel.rows import decode_set_key, decode_source
from outgate.kernel.rowtable import RowTable
from outgate.state.entries import (
    Address,
    Excluded,
    Family,
    Key,
    Network,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
    ViaGateway,
    family_of,
)
from outgate.state.plan import diff
from outgate.state.snapshot import Snapshot, policy_rows

POLICY = PolicyId(7)
PODS: dict[Family, list[Address]] = {
    Family.V4: [IPv4Address("10.0.1.1") + i for i in range(4)],
    Family.V6: [IPv6Address("fd00::1") + i for i in range(4)],
}
NETWORKS: dict[Family, list[Network]] = {
    Family.V4: [
        ip_network(text)
        for text in ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.1.2.3/32")
    ],
    Family.V6: [ip_network(t) for t in ("::/0", "2001:db8::/32", "2001:db8::1/128")],
}
GATEWAY: dict[Family, Address] = {
    Family.V4: IPv4Address("172.18.0.5"),
    Family.V6: IPv6Address("2001:db8::5"),
}


def fates(family: Family) -> list[PolicyEntry]:
    gateway = GATEWAY[family]
    return [
        ViaGateway(gateway, gateway, POLICY),
        ViaGateway(None, gateway, POLICY),
        Excluded(POLICY),
        NoGateway(POLICY),
        NoEgressIP(gateway, POLICY),
    ]


DESTINATIONS: dict[Family, list[Address]] = {
    Family.V4: [
        ip_address(t) for t in ("10.1.2.3", "10.1.2.4", "10.200.0.1", "9.9.9.9")
    ],
    Family.V6: [ip_address(t) for t in ("2001:db8::1", "2001:db8::2", "2002::1")],
}
"""One in each part of the networks."""

Fates = tuple[PolicyEntry | None, ...]
"""What happens to a pod at each of ``DESTINATIONS``."""


class MemoryMap(PinnedMap):
    """
    A map without a kernel; *refused* keys can be neither written nor removed.

    There is *room* for so many rows; *written* is called after each row.
    """

    def __init__(self, name: str, keys: Layout, values: Layout, family: Family) -> None:
        self.name = name
        self.data: dict[bytes, bytes] = {}
        self.refused: set[bytes] = set()
        self.room: int | None = None
        self.sizes = keys[family].size, values[family].size
        self.written: Callable[[], None] = lambda: None

    def packed_rows(self, chunk: int = 4096) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(self.data, key=_walked)
        for start in range(0, len(keys), chunk):
            part = [key for key in keys[start : start + chunk] if key in self.data]
            yield b"".join(part), b"".join(self.data[key] for key in part)

    def split(self, keys: bytes, values: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from zip(
            _cut(keys, self.sizes[0]), _cut(values, self.sizes[1]), strict=True
        )

    def put_packed(self, keys: bytes, values: bytes) -> dict[int, KernelError]:
        failures = {}
        for row, (key, value) in enumerate(self.split(keys, values)):
            is_full = self.room is not None and len(self.data) >= self.room
            if key in self.refused or (is_full and key not in self.data):
                failures[row] = KernelError("write map", errno.ENOMEM)
                continue
            self.data[key] = value
            self.written()
        return failures

    def remove_packed(self, keys: bytes) -> dict[int, KernelError]:
        failures = {}
        for row, key in enumerate(_cut(keys, self.sizes[0])):
            if key in self.refused:
                failures[row] = KernelError("remove from map", errno.EBUSY)
            elif self.data.pop(key, None) is not None:
                self.written()
        return failures


def _walked(key: bytes) -> tuple[int, int]:
    """Return when the kernel comes to *key* in a trie: parts before the whole."""
    prefix_len, bits = int.from_bytes(key[:4], sys.byteorder), 8 * (len(key) - 4)
    host_bits = (1 << max(bits - prefix_len, 0)) - 1
    return int.from_bytes(key[4:], "big") | host_bits, -prefix_len


def _cut(raw: bytes, size: int) -> list[bytes]:
    return [bytes(raw[i : i + size]) for i in range(0, len(raw), size)]


def fates_of(rows: Mapping[Network, PolicyEntry], family: Family) -> Fates:
    """Return what *rows* say of ``DESTINATIONS``: the longest prefix of each."""
    fates = []
    for destination in DESTINATIONS[family]:
        found = [network for network in rows if destination in network]
        longest = max(found, key=lambda network: network.prefixlen, default=None)
        fates.append(None if longest is None else rows[longest])
    return tuple(fates)


@dataclass(frozen=True, slots=True)
class Contents:
    """What maps held at one moment: sets of sources, rows of sets, rows of pods."""

    numbers: dict[Address, int]
    sets: dict[tuple[Family, int], dict[Network, PolicyEntry]]
    rows: dict[Address, dict[Network, PolicyEntry]]

    def found_by(self, pod: Address) -> Fates:
        """Return what a program finds that nobody overtakes."""
        return found_at((self, self, self, self), pod)


def found_at(moments: Sequence[Contents], pod: Address) -> Fates:
    """
    Return what a program finds that makes each of its four lookups at another moment.

    They are: the source's set, the set's row, the source's set again, the pod's row.
    """
    first, second, third, fourth = moments
    family, number = family_of(pod), first.numbers[pod]
    of_pod = fates_of(fourth.rows.get(pod, {}), family)
    if not number:
        return of_pod
    of_set = fates_of(second.sets.get((family, number), {}), family)
    if third.numbers[pod] == number:
        return of_set
    return tuple(s or p for s, p in zip(of_set, of_pod, strict=True))


class Bench:
    """Maps in memory, a table over them, and what it remembers."""

    def __init__(self) -> None:
        self.maps = {f: MemoryMap("rows", EGRESS_KEY, EGRESS_VALUE, f) for f in Family}
        self.sources = {
            f: MemoryMap("sources", SOURCE_KEY, SOURCE_VALUE, f) for f in Family
        }
        self.sets = {f: MemoryMap("sets", SET_KEY, EGRESS_VALUE, f) for f in Family}
        self.taken: set[bytes] = set()
        self.restart()

    def restart(self) -> None:
        """Forget everything but the maps."""
        self.held = Held()
        sets = {f: PolicySets(f, self.sources[f], self.sets[f]) for f in Family}
        self.table = RowTable(self.maps, sets, self.held)

    def all_maps(self) -> list[MemoryMap]:
        return [*self.maps.values(), *self.sources.values(), *self.sets.values()]

    async def bring(self, wish: Snapshot) -> dict[Key, KernelError]:
        plan = diff(wish, self.held.entries)
        return await self.table.change(plan, self.taken.update, lambda failures: None)

    def rows(self) -> list[tuple[PolicyKey, PolicyEntry]]:
        """Return what the maps of rows hold, in order."""
        return list(
            policy_rows({RowsKey(s): RowSet(r) for s, r in self.rows_by_pod().items()})
        )

    def rows_by_pod(self) -> dict[Address, dict[Network, PolicyEntry]]:
        found: dict[Address, dict[Network, PolicyEntry]] = {}
        for family, table in self.maps.items():
            for row in table.data.items():
                decoded = decode_row(EGRESS[family], *row)
                assert decoded
                key, entry = decoded
                assert isinstance(key, PolicyKey)
                assert isinstance(entry, ViaGateway | Excluded | NoGateway | NoEgressIP)
                found.setdefault(key.source, {})[key.destination] = entry
        return found

    def found_by_programs(self) -> dict[Address, Fates]:
        """Look all pairs up as ``policy_lookup()`` does (``classify.h``)."""
        there = self.contents()
        return {pod: there.found_by(pod) for pods in PODS.values() for pod in pods}

    def contents(self) -> "Contents":
        """Return what the maps hold now."""
        sets: dict[tuple[Family, int], dict[Network, PolicyEntry]] = {}
        for family, table in self.sets.items():
            for key, value in table.data.items():
                number, network = decode_set_key(key)
                of_set = sets.setdefault((family, number), {})
                of_set[network] = decode_policy_value(value)
        pods = [pod for pods in PODS.values() for pod in pods]
        numbers = {pod: self.set_of(pod) for pod in pods}
        return Contents(numbers, sets, self.rows_by_pod())

    def set_of(self, pod: Address) -> int:
        """Return the number of the set that *pod* has, 0 for none."""
        value = self.sources[family_of(pod)].data.get(pod.packed)
        return decode_source(pod.packed, value)[1] if value else 0

    def numbers_in_use(self) -> set[tuple[Family, int]]:
        return {
            (family, decode_source(key, value)[1])
            for family, table in self.sources.items()
            for key, value in table.data.items()
        }

    def numbers_there(self) -> set[tuple[Family, int]]:
        return {
            (family, decode_set_key(key)[0])
            for family, table in self.sets.items()
            for key in table.data
        }


def any_wish(chance: random.Random) -> Snapshot:
    wish: dict[Key, Value] = {}
    for family in Family:
        for pod in PODS[family]:
            rows: dict[Network, PolicyEntry] = {
                network: chance.choice(fates(family))
                for network in NETWORKS[family]
                if chance.random() < 0.5
            }
            if rows:
                wish[RowsKey(pod)] = RowSet(rows)
    return wish
