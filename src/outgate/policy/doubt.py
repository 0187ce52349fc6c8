"""
Pods that a bad policy may cover: new ones stay unknown, so that they drop, not leak.

What it is: a policy that turned bad while its agent was away has no version that
anybody knows; the kernel holds what it covered.  Its old pods stay as they are, and so
do the roles that addresses have by it.  A new pod that it selects would be known
without its rows: it is held back until the policy is mended.  A policy that the kernel
holds nothing of was never good, and changes nothing.

What it is not: for policies that turn bad under a running agent, which compiles
their last good version (``policies``).
"""

from collections.abc import Iterable, Set
from dataclasses import replace

from outgate.policy.compile import Compiled
from outgate.policy.model import Problem
from outgate.state.entries import (
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointKey,
    Excluded,
    Key,
    PolicyId,
    RowSet,
    RowsKey,
    Value,
)
from outgate.state.snapshot import Snapshot


def stay_careful(compiled: Compiled, held: Snapshot) -> Compiled:
    """Return *compiled* with what its kept policies ask for, by what is *held*."""
    if not compiled.kept_policies:
        return compiled
    once_good = policies_of(held)
    if compiled.kept_policies.isdisjoint(once_good):
        return compiled
    wanted = _keep_covered(compiled.snapshot, held, compiled.kept_policies)
    careful = replace(compiled, snapshot=_keep_roles(wanted, held))
    return _withhold_new_pods(careful, held, once_good)


def policies_of(held: Snapshot) -> set[PolicyId]:
    """Return the policies that entries are of; each set of rows is looked at once."""
    found = {v.policy for v in held.values() if isinstance(v, CoveredEntry)}
    for rows in _sets_of_rows(held):
        found.update(entry.policy for entry in rows.values())
    return found


def _sets_of_rows(held: Snapshot) -> Iterable[RowSet]:
    """Return each set of rows once, however many pods have it."""
    return {id(v): v for v in held.values() if isinstance(v, RowSet)}.values()


def _keep_covered(wanted: Snapshot, held: Snapshot, kept: Set[PolicyId]) -> Snapshot:
    """
    Return *wanted* with the networks that *kept* policies cover.

    One that a good policy covers as well stays covered when that one goes.
    """
    of_rows: dict[Key, Value] = {
        CoveredKey(network): CoveredEntry(entry.policy)
        for rows in _sets_of_rows(held)
        for network, entry in rows.items()
        if entry.policy in kept and not isinstance(entry, Excluded)
    }
    of_networks = {
        key: value
        for key, value in held.items()
        if isinstance(value, CoveredEntry) and value.policy in kept
    }
    return {**of_rows, **wanted, **of_networks}


def _keep_roles(wanted: Snapshot, held: Snapshot) -> Snapshot:
    """Return *wanted* with the roles that addresses have; rows end one of them."""
    covered = {key.source for key in wanted if isinstance(key, RowsKey)}
    kept: dict[Key, Value] = {}
    for key, now in wanted.items():
        was = held.get(key)
        if (
            isinstance(key, EndpointKey)
            and isinstance(now, EndpointEntry)
            and isinstance(was, EndpointEntry)
            and was.flags == now.flags
        ):
            is_other = was.is_other_family and key.address not in covered
            kept[key] = replace(
                now,
                is_egress_ip=now.is_egress_ip or was.is_egress_ip,
                is_other_family=now.is_other_family or is_other,
            )
    return {**wanted, **kept}


def _withhold_new_pods(
    compiled: Compiled, held: Snapshot, once_good: Set[PolicyId]
) -> Compiled:
    withheld = [
        doubt
        for doubt in compiled.doubtful_pods
        if doubt.policy.id in once_good and EndpointKey(doubt.address) not in held
    ]
    keys = {EndpointKey(doubt.address) for doubt in withheld}
    problems = tuple(
        Problem(
            doubt.reference,
            "status.podIPs",
            f"{doubt.address} is selected by {doubt.policy.kind} {doubt.policy.name},"
            " which is bad, so its traffic to covered networks is dropped; mend the"
            " policy",
        )
        for doubt in withheld
    )
    return replace(
        compiled,
        snapshot={k: v for k, v in compiled.snapshot.items() if k not in keys},
        problems=(*compiled.problems, *problems),
    )
