"""
What each test of a fault claims at its end.
"""

from faults.follower import Follower
from faults.world import World


async def arrives(agent: Follower, world: World) -> None:
    """Prove that all is well: nothing went, and what changes is told."""
    key = await world.add_pod("new")
    await agent.until(lambda: key in agent.pods and bool(agent.pods[key].addresses))
    await agent.until_complete()

    assert not agent.removed
    assert agent.source.errors == {}
