"""
New pods that a bad policy may cover: kept unknown, so that they drop, not leak.

What it is: a policy that turned bad while its agent was away has no version that
anybody knows; the kernel holds what it covered.  Its old pods stay as they are.  A
new pod that it selects would be known without its rows: it is held back until the
policy is mended.  A policy that the kernel holds nothing of was never good, and
holds nobody back.

What it is not: for policies that turn bad under a running agent, which compiles
their last good version (``source.history``).
"""

from dataclasses import replace

from outgate.policy.compile import Compiled
from outgate.policy.model import Problem
from outgate.state.entries import (
    CoveredEntry,
    EndpointKey,
    Excluded,
    NoEgressIP,
    NoGateway,
    ViaGateway,
)
from outgate.state.snapshot import Snapshot

_OF_POLICY = CoveredEntry | ViaGateway | Excluded | NoGateway | NoEgressIP


def withhold_new_pods(compiled: Compiled, held: Snapshot) -> Compiled:
    """Return *compiled* without the doubtful pods that are new to what is *held*."""
    if not compiled.doubtful_pods:
        return compiled
    once_good = {v.policy for v in held.values() if isinstance(v, _OF_POLICY)}
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
