"""What one stage is told: a cluster, a node of it, and what to measure there.  Pure."""

import json
from dataclasses import asdict, dataclass

from bench.world import PolicyKind, World


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Which *steps* (names in ``steps.STEPS``) to measure on *node*.

    Units: seconds; *churn_rate* is in changes a second.  Every pod or policy that
    changes is one of three changes: it comes, becomes another, goes.
    """

    world: World
    node: int
    steps: tuple[str, ...] = ()
    pod_changes: int = 501
    policy_changes: int = 120
    quiet_seconds: float = 30.0
    churn_seconds: float = 60.0
    churn_rate: float = 1000.0

    def to_json(self) -> str:
        """Return it as text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Return what ``to_json`` wrote."""
        fields = json.loads(text)
        world = fields.pop("world")
        kind = PolicyKind(world.pop("kind"))
        return cls(**fields, world=World(**world, kind=kind))
