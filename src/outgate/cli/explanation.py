"""
An explanation as lines for people and as JSON for machines.  Pure.

The JSON names rows as ``outgate policy plan`` does.
"""

from collections.abc import Iterable
from itertools import groupby

from outgate.policy.candidates import Candidate
from outgate.policy.contest import Contender
from outgate.policy.explain import Explanation, Row
from outgate.state.entries import NoEgressIP, ViaGateway

MOST_MISSES = 8
WIDTH = 11

Json = dict[str, object]


def explanation_text(told: Explanation) -> str:
    """Return the answer first, then what it rests on."""
    lines = [
        f"{_subject(told)} -> {told.destination}: {told.outcome}",
        told.reason,
        "",
        *_section("row", [_row_text(told.row)] if told.row else []),
        *_section("egress IP", _address_lines(told)),
        *_section("gateways", map(_candidate_text, told.candidates)),
        *_section("networks", map(_contender_text, told.contenders)),
        *_section("not this", _miss_lines(told)),
        *_section("not judged", _bad_lines(told)),
    ]
    return "\n".join(lines).rstrip()


def explanation_json(told: Explanation) -> Json:
    """Return the same for machines; what is unknown is null."""
    return {
        "pod": {
            "namespace": told.pod.namespace,
            "name": told.pod.name,
            "node": told.pod.node or None,
            "addresses": [str(address) for address in told.pod.addresses],
        },
        "destination": str(told.destination),
        "outcome": told.outcome,
        "reason": told.reason,
        "policy": told.policy.reference if told.policy else None,
        "gateway": told.gateway,
        "egressIP": str(told.egress_ip) if told.egress_ip else None,
        "interface": told.interface or None,
        "row": _row_json(told.row) if told.row else None,
        "candidates": [_candidate_json(each) for each in told.candidates],
        "networks": [_contender_json(each) for each in told.contenders],
        "misses": [
            {"policy": miss.policy, "path": miss.path, "message": miss.message}
            for miss in told.misses
        ],
        "notJudged": [
            {"object": found.object, "path": found.path, "message": found.message}
            for bad in told.bad_policies
            for found in bad.problems
        ],
    }


def _subject(told: Explanation) -> str:
    pod = told.pod
    addresses = ", ".join(map(str, pod.addresses)) or "no address"
    where = f"on {pod.node}" if pod.node else "on no node"
    return f"{pod.reference} ({addresses}, {where})"


def _section(name: str, lines: Iterable[str]) -> list[str]:
    """Return *lines* behind their name, which stands before the first alone."""
    return [
        f"{name if not place else '':{WIDTH}}{line}" for place, line in enumerate(lines)
    ]


def _row_text(row: Row) -> str:
    return f"{row.source} -> {row.destination}"


def _address_lines(told: Explanation) -> list[str]:
    if told.egress_ip is None:
        return []
    on = f" on {told.interface}" if told.interface else ""
    return [f"{told.egress_ip}{on} of {told.gateway}"]


def _candidate_text(each: Candidate) -> str:
    mark = "*" if each.is_chosen else "-"
    return f"{mark} {each.path}: {each.node or 'no node'}: {each.why}"


def _contender_text(each: Contender) -> str:
    mark = "-" if each.lost_because else "*"
    because = f": {each.lost_because}" if each.lost_because else ""
    return f"{mark} {each.policy.reference}: {each.path} {each.network}{because}"


def _miss_lines(told: Explanation) -> list[str]:
    lines = []
    for policy, misses in groupby(told.misses, key=lambda miss: miss.policy):
        lines += [f"- {policy}: {miss.path} {miss.message}" for miss in misses]
    rest = len(lines) - MOST_MISSES
    return lines if rest <= 0 else [*lines[:MOST_MISSES], f"and {rest} more"]


def _bad_lines(told: Explanation) -> list[str]:
    return [
        f"- {problem.object}: {problem.path}: {problem.message}"
        for bad in told.bad_policies
        for problem in bad.problems
    ]


def _row_json(row: Row) -> Json:
    entry = row.entry
    endpoint = (
        entry.tunnel_endpoint if isinstance(entry, ViaGateway | NoEgressIP) else None
    )
    return {
        "source": str(row.source),
        "destination": str(row.destination),
        "tunnelEndpoint": str(endpoint) if endpoint else None,
    }


def _candidate_json(each: Candidate) -> Json:
    return {
        "path": each.path,
        "node": each.node,
        "chosen": each.is_chosen,
        "why": each.why,
    }


def _contender_json(each: Contender) -> Json:
    return {
        "policy": each.policy.reference,
        "path": each.path,
        "network": str(each.network),
        "excluded": each.is_excluded,
        "wins": not each.lost_because,
        "why": each.lost_because,
    }
