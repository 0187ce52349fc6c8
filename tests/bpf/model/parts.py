"""
The model of datagrams in parts: only the first has ports, and the others follow it.

A later part that comes first is held, by the hook that it came to, until the first
comes, which then comes in again with those that waited.  Lifetimes are those of
``bpf/include/fragment.h``.
"""

from dataclasses import dataclass, field, replace

from bpf.model.headers import V4, Part
from bpf.model.outcome import Seen
from bpf.model.packet import Kind, Read, Tuple
from outgate.state.entries import Hook

V4_LIFE, V6_LIFE = 30, 60
HELD_PARTS, HELD_BYTES = 16, 2036
UNKNOWN, KNOWN, NOT_OURS = 0, 1, 2

Datagram = tuple[bytes, bytes, int, int]
"""Source, destination, identification, protocol (of IPv4; else 0)."""


def datagram(key: Tuple, identifier: int) -> Datagram:
    """Return what tells the parts of one datagram from others."""
    source, destination, _, _, protocol = key
    is_v4 = len(source) == V4.address
    return source, destination, identifier, protocol if is_v4 else 0


@dataclass(slots=True)
class Known:
    """What is known of a datagram; *state* as the datapath numbers it."""

    ports: tuple[int, int] = (0, 0)
    protocol: int = 0
    state: int = UNKNOWN
    is_awaited: bool = False
    seen: int = 0


@dataclass(slots=True)
class Parts:
    """All that one node knows of datagrams in parts."""

    now: int = 0
    known: dict[Datagram, Known] = field(default_factory=dict)
    held: dict[tuple[Hook, Datagram], list[bytes]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget every datagram."""
        self.known.clear()
        self.held.clear()

    def age(self, seconds: int) -> None:
        """Let time pass; what is held is lost."""
        self.now += seconds
        self.held.clear()

    def _is_current(self, key: Datagram, known: Known) -> bool:
        life = V4_LIFE if len(key[0]) == V4.address else V6_LIFE
        return self.now - known.seen <= life

    def _complete(self, bare: Tuple, identifier: int) -> Tuple | None:
        """Return the whole tuple of a later part, where its first is known."""
        key = datagram(bare, identifier)
        known = self.known.get(key)
        if not known or known.state != KNOWN or not self._is_current(key, known):
            return None
        return *bare[:2], *known.ports, known.protocol

    def resolve(self, seen: Seen) -> Seen:
        """Give a later part the ports of its datagram, or those of what it quotes."""
        read, quote = seen.read, seen.quote
        if seen.kind is not Kind.FRAGMENT:
            return seen
        if quote.kind is Kind.FRAGMENT and quote.tuple:
            key = self._complete(quote.tuple, quote.identifier)
            if key is None:
                return seen
            told = replace(quote, kind=Kind.ERROR, tuple=key)
            return replace(seen, quote=told, kind=Kind.ERROR)
        header = read.header
        if not header or not read.tuple or header.part is not Part.LATER:
            return seen
        key = self._complete(read.tuple, header.identifier)
        if key is None:
            return seen
        whole = replace(read, kind=Kind.FLOW, tuple=key)
        return replace(seen, read=whole, kind=Kind.FLOW)

    def note(self, key: Tuple, identifier: int, state: int = KNOWN) -> bool:
        """Remember the first part of a datagram; tell whether others wait for it."""
        known = self.known.setdefault(datagram(key, identifier), Known())
        is_awaited, known.is_awaited = known.is_awaited, False
        known.ports, known.protocol = (key[2], key[3]), key[4]
        known.state, known.seen = state, self.now
        return is_awaited

    def note_first(self, read: Read) -> None:
        """Remember *read* if it is a first part."""
        if read.header and read.tuple and read.header.part is Part.FIRST:
            self.note(read.tuple, read.header.identifier)

    def learn(self, hook: Hook, read: Read, state: int = KNOWN) -> bytes | None:
        """Remember a first part; return the last of the parts that waited for it."""
        if not read.header or not read.tuple or read.header.part is not Part.FIRST:
            return None
        identifier = read.header.identifier
        if not self.note(read.tuple, identifier, state):
            return None
        waiting = self.held.pop((hook, datagram(read.tuple, identifier)), None)
        return waiting[-1] if waiting else None

    def is_left_to_host(self, read: Read) -> bool:
        """Tell whether a later part belongs to a datagram of the node's own."""
        assert read.header
        assert read.tuple
        key = datagram(read.tuple, read.header.identifier)
        known = self.known.get(key)
        is_own = known is not None and known.state == NOT_OURS
        return is_own and known is not None and self._is_current(key, known)

    def hold(self, hook: Hook, read: Read, frame: bytes) -> bool:
        """Keep a later part until the first comes; False: there is no room."""
        assert read.header
        assert read.tuple
        key = datagram(read.tuple, read.header.identifier)
        waiting = self.held.setdefault((hook, key), [])
        if len(frame) > HELD_BYTES or len(waiting) >= HELD_PARTS:
            return False
        waiting.append(frame)
        known = self.known.get(key)
        if known is None or not self._is_current(key, known):
            self.known[key] = known = Known(seen=self.now)
        known.is_awaited = True
        return True


def translated(key: Tuple, address: bytes, port: int, *, is_source: bool) -> Tuple:
    """Return *key* with one of its ends translated."""
    source, destination, source_port, destination_port, protocol = key
    if is_source:
        return address, destination, port, destination_port, protocol
    return source, address, source_port, port, protocol
