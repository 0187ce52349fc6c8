"""
What must hold beside equality with the model, and is looked up without its hooks.

* What a policy covers leaves only with an egress IP of a row that was in force while
  the flow was used.
* No two live flows share the tuple of their replies, unless one lost its half.
* Of a live translation both halves are there, unless one was evicted since it was
  written.
"""

from bpf.harness import PASS, REDIRECT
from bpf.model.outcome import Arrival
from bpf.model.packet import Kind, Tuple, read
from bpf.model.rules import Rules, egress_ip_of
from bpf.model.table import FROM_TUNNEL, LOCAL_GATEWAY, Half, Table
from outgate.state.entries import Hook, ViaGateway


class Ledger:
    """Remembers what was allowed, and what was lost; *table* is what is there."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._allowed: dict[Tuple, set[bytes]] = {}
        self._evicted: dict[tuple[Tuple, int], int] = {}

    def note(self, arrival: Arrival, rules: Rules) -> None:
        """Note which egress IP the row in force gives to a packet of a pod."""
        seen = read(arrival.frame)
        if seen.kind is not Kind.FLOW or not seen.tuple:
            return
        pod = seen.tuple[0]
        row = rules.covering(pod, seen.tuple[1])
        allowed = self._allowed.setdefault(seen.tuple, set())
        if row is None:
            allowed.add(pod)
        elif isinstance(row, ViaGateway):
            allowed.add(egress_ip_of(row))

    def evicted(self, key: Tuple, direction: int) -> None:
        """Note that an entry was lost."""
        self._evicted[key, direction] = self._table.now

    def is_for_stack(self, frame: bytes) -> bool:
        """Tell whether the host's stack shall route *frame* to the uplink."""
        key = read(frame).tuple
        flow = self._table.flows.get(key) if key else None
        return flow is not None and flow.decision in (FROM_TUNNEL, LOCAL_GATEWAY)

    def check(self, arrival: Arrival, verdict: int, frame: bytes) -> None:
        """Look at what went on; AssertionError where a pod shows through."""
        key = read(arrival.frame).tuple
        allowed = self._allowed.get(key) if key else None
        if key is None or allowed is None or not _is_on_wire(arrival, verdict, frame):
            return
        source = read(frame).tuple
        assert source
        is_inbound = source == key and self._began_outside(key)

        assert is_inbound or source[0] in allowed, (
            f"left as {source[0].hex()}, allowed are {[a.hex() for a in allowed]}"
        )

    def _began_outside(self, key: Tuple) -> bool:
        flow = self._table.flows.get(key)
        return flow is not None and flow.decision == "inbound"

    def check_halves(self) -> None:
        """Look at all translations."""
        table = self._table
        owners: dict[Tuple, Tuple] = {}
        for key, half in table.forward.items():
            if not table.is_live(key[4], half):
                continue
            reply = key[1], half.address, key[3], half.port, key[4]
            other = table.backward.get(reply)
            is_whole = other is not None and other.leads_to(key[0], key[2])

            assert is_whole or self._was_lost(reply, 2, half), f"half of {key} alone"
            assert reply not in owners or self._was_lost(reply, 2, half), (
                f"{key} and {owners[reply]} share their replies"
            )
            owners[reply] = key
        for reply, half in table.backward.items():
            if half.is_host or not table.is_live(reply[4], half):
                continue
            key = half.address, reply[0], half.port, reply[2], reply[4]

            assert key in table.forward or self._was_lost(key, 1, half), (
                f"reverse half {reply} alone"
            )

    def _was_lost(self, key: Tuple, direction: int, partner: Half) -> bool:
        """Tell whether an entry was evicted since its partner was written."""
        return self._evicted.get((key, direction), -1) >= partner.seen


def _is_on_wire(arrival: Arrival, verdict: int, frame: bytes) -> bool:
    """Tell whether a packet of a pod leaves for the world."""
    if arrival.hook is Hook.TO_NETDEV:
        return verdict == PASS
    is_to_world = arrival.hook in (Hook.FROM_CONTAINER, Hook.FROM_OVERLAY)
    is_tunnelled = frame[14:] == arrival.frame[14:]
    return is_to_world and verdict == REDIRECT and not is_tunnelled
