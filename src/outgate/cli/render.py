"""
Values as lines and tables for people.  Pure: nothing is read, nothing is printed.

Tables are laid out as Go's tabwriter does with a minimum of 5 and a padding of 3,
because users of the field have scripts and eyes for that.  The rows of maps have a
module of their own: ``cli.maprows``.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from outgate.kernel.reasons import Reason, reason_name
from outgate.kernel.records import FlowTuple
from outgate.state.entries import Address, Family, PolicyId, family_of

MIN_WIDTH = 5
PADDING = 3
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}


class Output(StrEnum):
    """How an answer is printed."""

    TEXT = "text"
    JSON = "json"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Return aligned columns, without blanks at line ends.

    >>> print(table(("Key", "Value"), [("0.0.0.0/0", "2 0 0.0.0.0")]))
    Key         Value
    0.0.0.0/0   2 0 0.0.0.0
    """
    lines = [header, *rows]
    widths = [
        max(MIN_WIDTH, *(len(line[i]) + PADDING for line in lines))
        for i in range(len(header))
    ]
    return "\n".join(
        "".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def policy_text(policy: PolicyId) -> str:
    """Return a policy's number as maps and metrics show it; ``-`` for none."""
    return f"policy {policy:#010x}" if policy else "-"


def tuple_text(who: FlowTuple) -> str:
    """Return ``tcp 10.0.1.42:40000 -> 172.18.0.100:80``."""
    protocol = PROTOCOLS.get(who.protocol, str(who.protocol))
    source = address_text(who.source, who.source_port)
    return (
        f"{protocol} {source} -> {address_text(who.destination, who.destination_port)}"
    )


def address_text(address: Address, port: int) -> str:
    """Return ``10.0.1.42:80``, or ``[fd00::42]:80`` (RFC 5952, section 6)."""
    is_ipv6 = family_of(address) is Family.V6
    return f"[{address}]:{port}" if is_ipv6 else f"{address}:{port}"


def status_text(status: dict[str, Any]) -> str:
    """Return the agent's status as lines of a subject and what is known of it."""
    last, source = status["lastRound"], status["source"]
    lines = [
        ("node", status["node"]),
        ("version", status["version"]),
        ("pin directory", status["pinDir"]),
        ("gateway path", status["gatewayPath"]),
        ("existing flows", status["existingFlows"]),
        ("other family", status["otherFamily"]),
        ("gateway hook", status["gatewayHook"]),
        *(("uplink", _uplink_text(uplink)) for uplink in status["uplinks"]),
        ("source", _source_text(source)),
        *(("", f"{kind}: {error}") for kind, error in source["errors"].items()),
        *(("EgressNode", text) for text in _reporting_texts(status["egressNode"])),
        ("last round", _round_text(last, status["lastRoundAge"])),
    ]
    for kind, states in status["entries"].items():
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        lines.append((f"entries {kind}", counts))
    lines.append(("garbage", _garbage_text(status["garbage"])))
    lines.append(("forwarded", f"{status['forwarded']} packets"))
    for entry in status["failures"]:
        what = f"{entry['kind']} {entry['key']}: {entry['error']}"
        wait = f"for {entry['age']:.0f} s, next attempt in {entry['nextAttempt']:.0f} s"
        lines.append(("refused", f"{what} ({wait})"))
    for problem in status["problems"]:
        text = f"{problem['object']}: {problem['path']}: {problem['message']}"
        lines.append(("problem", text))
    width = max(len(subject) for subject, _ in lines) + PADDING
    text = "\n".join(f"{subject.ljust(width)}{text}" for subject, text in lines)
    return f"{text}{_packets_text(status['packets'])}"


def _uplink_text(uplink: dict[str, Any]) -> str:
    """
    Return where packets of an uplink are met first.

    >>> _uplink_text({"interface": "eth0", "hook": "tc", "reason": "it is a veth"})
    'eth0 by tc: it is a veth'
    """
    reason = f": {uplink['reason']}" if uplink["reason"] else ""
    return f"{uplink['interface']} by {uplink['hook']}{reason}"


def _packets_text(counts: Sequence[dict[str, Any]]) -> str:
    """Return a table of what was not forwarded, behind an empty line; else nothing."""
    forwarded = reason_name(Reason.FORWARDED)
    rows = [
        (
            count["reason"],
            count["direction"],
            str(count["packets"]),
            str(count["byte_count"]),
            count["policy"] or "-",
        )
        for count in counts
        if count["reason"] != forwarded
    ]
    header = ("Reason", "Direction", "Packets", "Bytes", "Policy")
    return f"\n\n{table(header, rows)}" if rows else ""


def _garbage_text(garbage: dict[str, Any]) -> str:
    if garbage["error"]:
        return f"by packets only: {garbage['error']}"
    counts = ", ".join(
        f"{family} {garbage[family]['released']} flows"
        for family in ("ipv4", "ipv6")
        if family in garbage
    )
    return f"by timer: {counts or 'nothing yet'}"


def _source_text(source: dict[str, Any]) -> str:
    if source["complete"]:
        return "complete"
    if source["listed"]:
        return "failing: entries are added, none is removed"
    return "not listed yet: programs follow interfaces, no row is changed"


def _reporting_texts(told: dict[str, Any] | None) -> tuple[str, ...]:
    """Return what is wrong with the node's report, if anything."""
    if told is None or told["error"] is None:
        return ()
    return (f"not written: {told['error']}",)


def _round_text(last: dict[str, Any] | None, age: float | None) -> str:
    if last is None or age is None:
        return "none yet"
    if last["error"]:
        return f"number {last['number']} failed {age:.0f} s ago: {last['error']}"
    counts = ", ".join(f"{last[key]} {key}" for key in ("added", "removed", "failed"))
    return f"number {last['number']}, {age:.0f} s ago: {counts}"
