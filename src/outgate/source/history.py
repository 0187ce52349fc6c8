"""
What becomes of a policy that turns bad: its last good version stays in force.

What it is: a memory of good versions, by uid, for as long as the object exists.
What it is not: persistent; after a restart, what the kernel holds is kept instead.
"""

from collections.abc import Iterable

from outgate.policy.model import BadPolicy, EgressPolicy

_Identifier = tuple[str, str, str]


class PolicyHistory:
    """The last good version of each policy that still exists."""

    def __init__(self) -> None:
        self._good: dict[_Identifier, EgressPolicy] = {}

    def split(
        self, current: Iterable[EgressPolicy | BadPolicy]
    ) -> tuple[tuple[EgressPolicy, ...], tuple[BadPolicy, ...]]:
        """Return the policies in force and the bad ones, both by name."""
        listed = list(current)
        good = {_identify(p): p for p in listed if isinstance(p, EgressPolicy)}
        bad = [p for p in listed if isinstance(p, BadPolicy)]
        for policy in bad:
            if last := self._good.get(_identify(policy)):
                good[_identify(policy)] = last
        self._good = good
        return (
            tuple(sorted(good.values(), key=lambda policy: policy.name)),
            tuple(sorted(bad, key=lambda policy: policy.name)),
        )


def _identify(policy: EgressPolicy | BadPolicy) -> _Identifier:
    """Tell one object from another: by all of its names, because numbers collide."""
    return policy.uid, policy.kind, policy.name
