"""
A cluster and a node's facts -> what its kernel must hold: the engine used once.

What it is: for answers without a running agent (``outgate policy plan``, tests), and
what an agent wants before it knows its cluster.
What it is not: a second way to decide anything; ``engine`` does.
"""

from dataclasses import dataclass

from outgate.policy.addresses import held_node_addresses
from outgate.policy.attachments import attachment_entries
from outgate.policy.endpoints import DoubtfulPod, pod_key
from outgate.policy.engine import Engine
from outgate.policy.model import Cluster, ClusterChanges, Problem
from outgate.state.entries import NodeName, PolicyId, TunnelDevice, TunnelKey
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Compiled:
    """
    What a node should hold, what the user should know, and what must stay.

    *kept_policies* are bad policies of which no good version is known: what the
    kernel still holds for them stays as it is.  *doubtful_pods* are the pods of this
    node that such policies select (``doubt`` says what becomes of them).
    """

    snapshot: Snapshot
    problems: tuple[Problem, ...] = ()
    kept_policies: frozenset[PolicyId] = frozenset()
    doubtful_pods: tuple[DoubtfulPod, ...] = ()


def compile_node(
    cluster: Cluster, node: NodeName, facts: NodeFacts, tunnel: TunnelDevice
) -> Compiled:
    """Return everything that the kernel of *node* should hold for *cluster*."""
    engine = Engine(node, tunnel)
    engine.observe(facts)
    for changes in as_changes(cluster):
        engine.change(changes)
    engine.settle()
    return settled(engine)


def as_changes(cluster: Cluster) -> tuple[ClusterChanges, ClusterChanges]:
    """Return *cluster* as if all of it had just come: the bad policies came last."""
    return (
        ClusterChanges(
            nodes={node.name: node for node in cluster.nodes},
            namespaces={namespace.name: namespace for namespace in cluster.namespaces},
            pods={pod_key(pod): pod for pod in cluster.endpoints},
            policies={f"{p.kind}/{p.name}": p for p in cluster.policies},
            networks={"": cluster.cluster_networks},
        ),
        ClusterChanges(
            policies={f"{p.kind}/{p.name}": p for p in cluster.bad_policies}
        ),
    )


def settled(engine: Engine) -> Compiled:
    """Return what *engine* last settled on; its snapshot stays the engine's own."""
    return Compiled(
        snapshot=engine.desired,
        problems=engine.problems,
        kept_policies=engine.kept_policies,
        doubtful_pods=engine.doubtful_pods,
    )


def compile_unlisted(
    held: Snapshot, facts: NodeFacts, tunnel: TunnelDevice
) -> Compiled:
    """
    Return what a node should hold before its cluster is known: its programs.

    Which interfaces get programs depends on the node alone.  Where an earlier agent
    filled the maps (*held*), they are needed at once: without them the packets of a
    pod that comes now would leak for as long as the source is away.  Empty maps
    cover nothing; there, programs wait until the maps are filled.
    """
    own = held_node_addresses(held)
    if not own:
        return Compiled(snapshot={})
    attachments = attachment_entries(facts, own, tunnel.name)
    return Compiled(snapshot={TunnelKey(): tunnel, **attachments})
