"""
What each test of a fault claims at its end.
"""

from faults.follower import Agent
from faults.world import NETWORKS, World


async def arrives(agent: Agent, world: World) -> None:
    """Prove that all is well: no row went, and what changes becomes rows."""
    key = await world.add_pod("new")
    await agent.until(lambda: key in agent.pods and bool(agent.pods[key].addresses))
    await agent.until_complete()
    (address,) = agent.pods[key].addresses

    assert not agent.removed
    assert not agent.lost
    assert (await agent.rows())[f"{address} -> {NETWORKS}"] == "ViaGateway"
    assert agent.source.errors == {}
