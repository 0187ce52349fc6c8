"""
Makes up stories (hypothesis), and shortens those in which kernel and model differ.

Ports are few, in and beside the node's range of four, so that flows meet.  Ages are
multiples of seven seconds: no sum of them is a lifetime.
"""

import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
)

from bpf.harness import Node
from bpf.model.check import Checker
from bpf.stories.story import Sent, Story
from bpf.world import POLICY, World
from outgate.state.entries import (
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Hook,
    IpcacheKey,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
)

PORTS = (40000, 40003)
LOCAL_PODS = ("LOCAL_POD", "LOCAL_POD", "TUNNELLED_POD", "FREE_POD", "UNKNOWN_POD")
REMOTE_PODS = ("REMOTE_POD", "OTHER_REMOTE_POD", "THIRD_NODES_POD")
COVERED_PODS = ("LOCAL_POD", "REMOTE_POD", "TUNNELLED_POD", "OTHER_REMOTE_POD")
SERVERS = ("SERVER", "SERVER", "OTHER_COVERED_SERVER", "EXCLUDED_SERVER")
AGES = (7, 14, 63, 301, 7441)

local_pods = st.sampled_from(LOCAL_PODS)
remote_pods = st.sampled_from(REMOTE_PODS)
servers = st.sampled_from(SERVERS)
protocols = st.sampled_from(("udp", "tcp", "tcp", "echo", "sctp"))
flags = st.sampled_from(("ack", "syn", "syn", "fin", "rst", "accept"))
own_ports = st.sampled_from((40000, 40001, 39999))
host_ports = st.integers(*PORTS)
hooks = st.sampled_from(sorted(set(Hook) - {Hook.FORWARD_GUARD, Hook.XDP_NETDEV}))

Seat = Callable[[], tuple[Node, Checker]]


class StoryMachine(RuleBasedStateMachine):
    """Tells stories of the node that :attr:`seat` gives, in :attr:`world`."""

    seat: Seat
    world: World

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        node, checker = type(self).seat()
        self.story = Story(node, checker, self.world)

    def teardown(self) -> None:
        self.story.end()

    @initialize(
        target=sent, pod=st.sampled_from(COVERED_PODS), protocol=protocols, flags=flags
    )
    def it_begins_with(
        self, pod: str, protocol: str, flags: str
    ) -> Sent | MultipleResults[Sent]:
        return self.story.send(pod, "SERVER", protocol, 40000, flags) or multiple()

    @rule(
        target=sent,
        pod=local_pods,
        server=servers,
        protocol=protocols,
        port=own_ports,
        flags=flags,
    )
    def local_pod_sends(
        self, pod: str, server: str, protocol: str, port: int, flags: str
    ) -> Sent | MultipleResults[Sent]:
        return self.story.send(pod, server, protocol, port, flags) or multiple()

    @rule(
        target=sent,
        pod=remote_pods,
        server=servers,
        protocol=protocols,
        port=own_ports,
        flags=flags,
    )
    def remote_pod_sends(
        self, pod: str, server: str, protocol: str, port: int, flags: str
    ) -> Sent | MultipleResults[Sent]:
        return self.story.send(pod, server, protocol, port, flags) or multiple()

    @rule(packet=sent)
    def packet_comes_again(self, packet: Sent) -> None:
        self.story.leave(packet.arrival)

    @rule(packet=sent, flags=flags)
    def pod_goes_on(self, packet: Sent, flags: str) -> None:
        self.story.go_on(packet, flags)

    @rule(packet=sent, flags=flags)
    def server_answers(self, packet: Sent, flags: str) -> None:
        self.story.server_answers(packet, flags)

    @rule(packet=sent, is_long=st.booleans())
    def router_refuses(self, packet: Sent, is_long: bool) -> None:
        self.story.router_refuses(packet, is_long=is_long)

    @rule(packet=sent)
    def pod_refuses_the_answer(self, packet: Sent) -> None:
        self.story.pod_refuses(packet)

    @rule(
        server=servers,
        pod=local_pods,
        protocol=protocols,
        flags=flags,
        reaction=flags | st.none(),
    )
    def world_knocks(
        self, server: str, pod: str, protocol: str, flags: str, reaction: str | None
    ) -> None:
        self.story.knock(server, pod, protocol, flags)
        if reaction:
            self.story.pod_answers(server, pod, protocol, reaction)

    @rule(server=servers, protocol=protocols, port=host_ports, flags=flags)
    def host_sends(self, server: str, protocol: str, port: int, flags: str) -> None:
        self.story.host_sends(server, protocol, port, flags)

    @rule(
        kind=st.sampled_from((socket.SOCK_STREAM, socket.SOCK_DGRAM)), port=host_ports
    )
    def host_binds(self, kind: socket.SocketKind, port: int) -> None:
        self.story.bind(kind, port)

    @rule(seconds=st.sampled_from(AGES))
    def time_passes(self, seconds: int) -> None:
        self.story.wait(seconds)

    @rule(packet=sent, which=st.sampled_from(("flow", "forward", "reverse")))
    def entry_is_evicted(self, packet: Sent, which: str) -> None:
        self.story.evict(packet, which)

    @rule(
        pod=st.sampled_from(COVERED_PODS),
        row=st.sampled_from(
            ("here", "other IP", "elsewhere", "no gateway", "no IP", "not", "removed")
        ),
    )
    def policy_changes(self, pod: str, row: str) -> None:
        world = self.world
        key = world.row(world.address(pod), world.NETWORK)
        self.story.change(key, self._row(row))

    def _row(self, row: str) -> PolicyEntry | Excluded | None:
        world = self.world
        rows: dict[str, PolicyEntry | Excluded | None] = {
            "here": world.via(world.HERE),
            "other IP": world.via(world.HERE, world.OTHER_EGRESS_IP),
            "elsewhere": world.via(world.ELSEWHERE),
            "no gateway": NoGateway(POLICY),
            "no IP": NoEgressIP(world.tunnel_address(world.HERE), POLICY),
            "not": Excluded(POLICY),
            "removed": None,
        }
        return rows[row]

    @rule(pod=local_pods, is_known=st.booleans())
    def pod_becomes_known(self, pod: str, is_known: bool) -> None:
        key = EndpointKey(ip_address(self.world.address(pod)))
        self.story.change(key, EndpointEntry(EndpointFlag.POD) if is_known else None)

    @rule(is_third=st.booleans())
    def pods_move(self, is_third: bool) -> None:
        world = self.world
        node = world.THIRD if is_third else world.ELSEWHERE
        entries = world.node_entries(node, pods=world.REMOTE_PODS)
        key = IpcacheKey(ip_network(world.REMOTE_PODS))
        self.story.change(key, entries[key])

    @rule(hook=hooks, luck=st.sampled_from(range(24)))
    def agent_may_restart(self, hook: Hook, luck: int) -> None:
        """
        One program is loaded anew over the same maps, the others are still old.

        Seldom: the verifier takes longer than all the rest of a story.
        """
        if luck == 0:
            self.story.node.restart(hook, self.world.family)
            self.story.node.inside(self.story.checker.runner.find_programs)
