"""The agent whole, over a fake kernel and a source in memory."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from outgate.agent.agent import Agent
from outgate.agent.ask import AgentAbsentError, ask
from outgate.agent.config import AgentConfig, load_config
from outgate.cli.monitor import policy_names
from outgate.errors import ConfigError, KernelError
from outgate.kernel.fake import FakeKernel
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection, MetricRecord
from outgate.policy.model import (
    BadPolicy,
    Cluster,
    ClusterChanges,
    EgressPolicy,
    Endpoint,
    GatewayAtAddress,
    Namespace,
    Node,
    PodQuery,
    Rule,
)
from outgate.policy.selectors import Operator, Requirement, Selector
from outgate.source.client import Client, Connection
from outgate.source.interface import KindStatistics
from outgate.state.entries import (
    Attachment,
    AttachmentKey,
    EndpointKey,
    Hook,
    InterfaceIndex,
    NodeName,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    TunnelKey,
)
from outgate.state.facts import Link, NodeFacts, XdpFeature
from outgate.state.snapshot import policy_rows

NODE = NodeName("k8s-guide-worker2")
GATEWAY = IPv4Address("172.18.0.5")
POD = IPv4Address("10.0.2.86")
ECHO = IPv4Network("172.18.0.0/16")
ROW = PolicyKey(POD, ECHO)
POLICY = EgressPolicy(
    kind="CiliumEgressNATPolicy",
    name="egress-all",
    uid="u",
    created="",
    id=PolicyId(7),
    rules=(Rule(Selector()),),
    destinations=(ECHO,),
    gateways=(GatewayAtAddress(GATEWAY),),
)
CLUSTER = Cluster(
    nodes=(Node(NODE, internal_addresses=(GATEWAY,)),),
    namespaces=(Namespace("default"),),
    endpoints=(Endpoint("default", "tshoot", addresses=(POD,), node=NODE),),
    policies=(POLICY,),
)
FACTS = NodeFacts(
    links=(Link("eth0", InterfaceIndex(2), addresses=(GATEWAY,)),),
    default_interface="eth0",
)


class MemorySource:
    """A source that tests set."""

    def __init__(self) -> None:
        self.cluster = CLUSTER
        self.is_listed = True
        self.is_complete = True
        self.errors: Mapping[str, str] = {}
        self._told = Cluster()
        self._changed = asyncio.Event()

    def change(self, cluster: Cluster, *, is_complete: bool = True) -> None:
        self.cluster, self.is_complete = cluster, is_complete
        self._changed.set()

    def take_changes(self) -> ClusterChanges:
        before, now = _objects(self._told), _objects(self.cluster)
        self._told = self.cluster
        gone = ClusterChanges(
            **{kind: dict.fromkeys(objects, None) for kind, objects in before.items()}
        )
        for kind, objects in now.items():
            getattr(gone, kind).update(objects)
        return gone

    def need_pods(self, queries: Set[PodQuery]) -> None:
        self.needed = queries

    def statistics(self) -> tuple[KindStatistics, ...]:
        return ()

    async def wait_changed(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def run(self) -> None:
        await asyncio.Event().wait()


def _objects(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return what is in a cluster by its kind and key."""
    judged: list[EgressPolicy | BadPolicy] = [
        *cluster.policies,
        *cluster.bad_policies,
    ]
    return {
        "nodes": {node.name: node for node in cluster.nodes},
        "namespaces": {space.name: space for space in cluster.namespaces},
        "pods": {f"{pod.namespace}/{pod.name}": pod for pod in cluster.endpoints},
        "policies": {f"{policy.kind}/{policy.name}": policy for policy in judged},
    }


class Bench:
    """An agent that runs, and what is around it."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        # The tunnel device is among the links, as the real kernel reports it.
        tunnel = Link(config.tunnel_device, InterfaceIndex(3), kind="vxlan")
        self.kernel = FakeKernel(replace(FACTS, links=(*FACTS.links, tunnel)))
        self.source = MemorySource()
        self.stop = asyncio.Event()

    def add_pod_interface(self, name: str) -> None:
        facts = self.kernel.facts
        index = InterfaceIndex(len(facts.links) + 2)
        link = Link(name, index, kind="veth", peer_elsewhere=True)
        self.kernel.set_facts(replace(facts, links=(*facts.links, link)))

    async def is_attached(self, interface: str, hook: Hook) -> bool:
        held = (await self.kernel.observe()).snapshot
        return held.get(AttachmentKey(interface, hook)) is Attachment.CURRENT

    async def ask(self, path: str) -> Any:
        return await asyncio.to_thread(ask, self.config.status_socket, path)

    async def get(self, path: str) -> str:
        """Return the whole answer, with its status line."""
        reader, writer = await asyncio.open_unix_connection(self.config.status_socket)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.decode()

    async def after_round(self, number: int) -> Any:
        """Return the status once round *number* is over."""
        async with asyncio.timeout(5):
            while True:
                with suppress(AgentAbsentError):
                    status = await self.ask("/status")
                    if status["lastRound"] and status["lastRound"]["number"] >= number:
                        return status
                await asyncio.sleep(0.01)


async def rows(kernel: FakeKernel) -> dict[PolicyKey, PolicyEntry]:
    """Return the policy rows that *kernel* holds."""
    return dict(policy_rows((await kernel.observe()).snapshot))


@asynccontextmanager
async def running(
    tmp_path: Path, bench: Bench | None = None, client: Client | None = None
) -> AsyncIterator[Bench]:
    """Run an agent, over the kernel that an earlier *bench* has left behind."""
    flags = {"node": NODE, "status-socket": str(tmp_path / "agent.sock")}
    earlier, bench = bench, Bench(load_config(flags, {}))
    if earlier:
        bench.kernel = earlier.kernel
    task = asyncio.create_task(
        Agent(bench.config, bench.kernel, bench.source, client).run(bench.stop)
    )
    try:
        yield bench
    finally:
        bench.stop.set()
        await task


async def test_a_policy_reaches_the_kernel(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        status = await bench.after_round(1)

        assert ROW in await rows(bench.kernel)
        assert status["source"]["complete"] is True
        assert status["entries"]["policy"] == {"done": 1}
        assert status["failures"] == []


async def test_entries_are_told_one_by_one(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)
        answer = await bench.ask("/entries")
        (row,) = [entry for entry in answer["entries"] if entry["kind"] == "policy"]

        assert (row["key"], row["wanted"], row["state"]) == (
            "10.0.2.86 -> 172.18.0.0/16",
            "via 172.18.0.5 as 172.18.0.5",
            "done",
        )


async def test_nothing_is_removed_while_the_source_fails(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)
        bench.source.change(replace(CLUSTER, policies=()), is_complete=False)
        status = await bench.after_round(2)

        assert ROW in await rows(bench.kernel)
        assert status["entries"]["policy"] == {"kept": 1}


async def test_nothing_is_changed_before_the_first_list(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        bench.source.is_listed = bench.source.is_complete = False
        status = await bench.after_round(1)

        assert status["problems"] == []
        assert (await bench.kernel.observe()).snapshot == {}


async def test_a_new_pods_interface_gets_its_programs_while_the_source_fails(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)
        bench.source.change(CLUSTER, is_complete=False)
        await bench.after_round(2)
        bench.add_pod_interface("veth1")
        await bench.after_round(3)

        assert await bench.is_attached("veth1", Hook.FROM_CONTAINER)


async def test_a_new_agent_attaches_before_the_first_list_where_maps_are_filled(
    tmp_path: Path,
) -> None:
    """The API is away: a new pod's covered traffic must be dropped, not leak."""
    async with running(tmp_path) as bench:
        await bench.after_round(1)
    held = dict((await bench.kernel.observe()).snapshot)
    bench.kernel.restart()
    bench.add_pod_interface("veth1")
    async with running(tmp_path, bench) as again:
        again.source.is_listed = again.source.is_complete = False
        status = await again.after_round(1)

        after = (await again.kernel.observe()).snapshot
        assert {key: after[key] for key in held} == held
        assert await again.is_attached("veth1", Hook.FROM_CONTAINER)
        assert await again.is_attached("eth0", Hook.TO_NETDEV)
        assert not await again.is_attached("eth0", Hook.FROM_CONTAINER)
        assert status["failures"] == []


async def test_an_interface_after_the_start_is_attached_before_the_first_list(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)
    async with running(tmp_path, bench) as again:
        again.source.is_listed = again.source.is_complete = False
        await again.after_round(1)
        again.add_pod_interface("veth2")
        await again.after_round(2)

        assert await again.is_attached("veth2", Hook.FROM_CONTAINER)


async def test_a_deleted_policy_leaves_the_kernel(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)
        bench.source.change(replace(CLUSTER, policies=()))
        await bench.after_round(2)

        assert ROW not in await rows(bench.kernel)


async def test_what_a_bad_policy_covered_stays(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)
        bad = BadPolicy(POLICY.kind, POLICY.name, POLICY.uid, POLICY.id, ())
        bench.source.change(replace(CLUSTER, policies=(), bad_policies=(bad,)))
        await bench.after_round(2)

        assert ROW in await rows(bench.kernel)


async def test_a_new_pod_of_a_policy_that_is_bad_since_a_restart_stays_unknown(
    tmp_path: Path,
) -> None:
    """Nobody knows any more what it covers; unknown pods drop, known ones stay."""
    async with running(tmp_path) as bench:
        await bench.after_round(1)
    selected = Selector((Requirement("app", Operator.IN, frozenset({"a"})),))
    bad = BadPolicy(POLICY.kind, "egress-all", "u", POLICY.id, (), (Rule(selected),))
    new, other = IPv4Address("10.0.2.87"), IPv4Address("10.0.2.88")
    pods = (
        *CLUSTER.endpoints,
        Endpoint("default", "new", addresses=(new,), labels={"app": "a"}, node=NODE),
        Endpoint("default", "other", addresses=(other,), node=NODE),
    )
    async with running(tmp_path, bench) as again:
        again.source.cluster = replace(
            CLUSTER, policies=(), bad_policies=(bad,), endpoints=pods
        )
        status = await again.after_round(1)

        held = (await again.kernel.observe()).snapshot
        assert {EndpointKey(POD), EndpointKey(other)} <= set(held)
        assert ROW in await rows(again.kernel)
        assert EndpointKey(new) not in held
        assert [problem["object"] for problem in status["problems"]] == [
            "Pod default/new"
        ]


async def test_a_policy_that_was_never_good_holds_no_pod_back(tmp_path: Path) -> None:
    bad = BadPolicy(POLICY.kind, "bad", "v", PolicyId(9), (), (Rule(Selector()),))
    async with running(tmp_path) as bench:
        bench.source.cluster = replace(CLUSTER, bad_policies=(bad,))
        await bench.after_round(1)

        assert EndpointKey(POD) in (await bench.kernel.observe()).snapshot


async def test_a_stop_leaves_everything_in_the_kernel(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)

    assert ROW in await rows(bench.kernel)
    assert TunnelKey() in (await bench.kernel.observe()).snapshot


async def test_a_second_agent_of_a_node_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)
        second = Agent(bench.config, FakeKernel(), MemorySource())
        with pytest.raises(ConfigError, match="another agent runs with"):
            await second.run(bench.stop)


class CountingKernel(FakeKernel):
    """A kernel whose datapath has counted one packet under each reason."""

    def metrics(self) -> tuple[MetricRecord, ...]:
        return tuple(
            MetricRecord(reason, MetricDirection.TO_WORLD, POLICY.id, 1, 60)
            for reason in Reason
        )


async def test_status_tells_drops_from_what_is_left_alone(tmp_path: Path) -> None:
    counting = Bench(load_config({"node": NODE}, {}))
    counting.kernel = CountingKernel(counting.kernel.facts)
    async with running(tmp_path, counting) as bench:
        status = await bench.after_round(1)

    passed = {"other_family": 1, "fragment_held": 1}
    assert (status["forwarded"], status["passed"]) == (1, passed)
    assert all(name.startswith("drop_") for name in status["drops"])
    assert len(status["drops"]) == len(Reason) - 3
    assert {
        "reason": "drop_no_route",
        "direction": "to_world",
        "policy": "CiliumEgressNATPolicy egress-all",
        "packets": 1,
        "byte_count": 60,
    } in status["packets"]
    assert (status["existingFlows"], status["otherFamily"]) == ("keep", "pass")


async def test_refused_xdp_is_told_but_leaves_the_node_ready(tmp_path: Path) -> None:
    """The tc programs do all the work."""
    able = XdpFeature.BASIC | XdpFeature.REDIRECT
    refusing = Bench(load_config({"node": NODE}, {}))
    eth0, tunnel = refusing.kernel.facts.links
    facts = replace(FACTS, links=(replace(eth0, xdp_features=able), tunnel))
    refusing.kernel.set_facts(facts)
    on_uplink = AttachmentKey("eth0", Hook.XDP_NETDEV)
    refusing.kernel.refuse(
        on_uplink, KernelError("attach xdp_netdev_v4", errno.EOPNOTSUPP)
    )
    async with running(tmp_path, refusing) as bench:
        status = await bench.after_round(1)
        ready, metrics = await bench.get("/readyz"), await bench.get("/metrics")

    (uplink,) = status["uplinks"]
    assert (status["gatewayHook"], uplink["hook"]) == ("auto", "tc")
    assert "attach xdp_netdev_v4" in uplink["reason"]
    assert [one["key"] for one in status["failures"]] == ["xdp_netdev on eth0"]
    assert 'outgate_uplink_hook{hook="tc",interface="eth0"} 1.0' in metrics
    assert " 200 " in ready.splitlines()[0]


async def test_status_tells_that_the_report_cannot_be_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    async with (
        Client(Connection(url)) as client,
        running(tmp_path, client=client) as bench,
        asyncio.timeout(5),
    ):
        status = await bench.after_round(1)
        while not status["egressNode"]["failed"]:
            await asyncio.sleep(0.01)
            status = await bench.ask("/status")

    assert 0 == status["egressNode"]["written"]
    assert "/apis/outgate.io/v1alpha1/egressnodes" in status["egressNode"]["error"]


async def test_policies_are_told_by_the_datapaths_number(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.after_round(1)
        answer = await bench.ask("/policies")
        socket = bench.config.status_socket
        names = await asyncio.to_thread(policy_names, socket)

    expected = {"id": 7, "name": "CiliumEgressNATPolicy egress-all"}
    assert {"policies": [expected]} == answer
    assert {7: "CiliumEgressNATPolicy egress-all"} == names
