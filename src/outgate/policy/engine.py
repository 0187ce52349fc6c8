"""
The heart of the project: what one node's kernel must hold, kept current.

What it is: pure.  Fed with changes of the cluster and with the node's facts, it keeps
``desired`` and tells which keys it touched.  Work is proportional to what changed;
the order of changes does not matter, and every agent that sees the same cluster agrees
on gateways and winners.

What it is not: it changes nothing in the kernel; ``state.plan`` compares ``desired``
with what the kernel holds, ``reconcile`` applies the difference.

Who calls it: the agent each round, and ``compile_node`` for one answer.
"""

from collections.abc import Mapping, Set
from ipaddress import ip_network

from outgate.policy.addresses import EVERYTHING, Inside, link_addresses
from outgate.policy.answers import (
    LocalPolicy,
    defeats,
    doubtful_pods,
    local_policies,
    needed_pods,
    pod_addresses,
)
from outgate.policy.attachments import attachment_entries, uplinks
from outgate.policy.covering import Covering
from outgate.policy.endpoints import (
    AddressBook,
    DoubtfulPod,
    holds_addresses,
    pod_key,
)
from outgate.policy.model import ClusterChanges, Endpoint, Node, PodQuery, Problem
from outgate.policy.nodes import NodeIndex, place_of_pods
from outgate.policy.policies import FateChange, PolicyBook
from outgate.policy.problems import missing_node, unknown_networks
from outgate.policy.rows import Lot, RowPool, SharedRows, tell_defeats
from outgate.policy.selection import Selection
from outgate.policy.wanted import Wanted
from outgate.policy.xdp import GatewayHook, XdpRule
from outgate.state.entries import (
    Address,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    IpcacheKey,
    Key,
    Network,
    NodeKey,
    NodeName,
    PolicyId,
    RowsKey,
    TunnelDevice,
    TunnelKey,
    Value,
    family_of,
)
from outgate.state.facts import Link, NodeFacts


class Engine:
    """
    What *node* should hold; *tunnel* is its tunnel device, *hook* a setting.

    ``change`` and ``observe`` take what is new, in any order, ``settle`` brings
    ``desired`` up to date.  Nobody else writes ``desired``.
    """

    def __init__(
        self,
        node: NodeName,
        tunnel: TunnelDevice,
        hook: GatewayHook = GatewayHook.AUTO,
    ) -> None:
        self.desired: dict[Key, Value] = {TunnelKey(): tunnel}
        self._node = node
        self._tunnel = tunnel
        self._hook = hook
        self._facts = NodeFacts()
        self._nodes = NodeIndex()
        self._book = PolicyBook(node, self._nodes)
        self._selection = Selection()
        self._holders = AddressBook()
        self._inside = Inside(node, self._nodes)
        self._covering = Covering(self._book.fates)
        self._pool = RowPool(node)
        self._wanted = Wanted(self.desired, self._pool)
        self._own: frozenset[Address] = frozenset()
        self._attached: tuple[Key, ...] = ()
        self._egress_ips: set[Address] = set()
        self._addresses: set[Address] = set()
        self._node_addresses: set[Address] = set()
        self._networks: set[Network] = set(EVERYTHING)
        self._is_own_stale = True
        self._are_egress_ips_stale = False
        self._problems: tuple[Problem, ...] | None = None
        self._pod_queries: frozenset[PodQuery] | None = None

    def change(self, changes: ClusterChanges) -> None:
        """Take objects that came, changed or went."""
        if changes == ClusterChanges():
            return
        for key, policy in changes.policies.items():
            self._selection.put_policy(key, self._book.put(key, policy))
        for source, networks in changes.networks.items():
            self._networks.update(self._inside.put_networks(source, networks))
        for name, namespace in changes.namespaces.items():
            self._selection.put_namespace(name, namespace)
        for name, node in changes.nodes.items():
            self._change_node(NodeName(name), node)
        for key, pod in changes.pods.items():
            old = self._selection.pod(key)
            if old != pod:
                self._selection.put_pod(key, pod)
                self._addresses |= self._holders.replace(old, pod)
        self._forget_answers()

    def observe(self, facts: NodeFacts) -> None:
        """Take what this node has now."""
        if facts != self._facts:
            self._facts = facts
            self._is_own_stale = True
            self._book.touch_facts()
            self._forget_answers()

    def settle(self) -> Set[Key]:
        """Bring ``desired`` up to date; return the keys touched since the last call."""
        for change in self._book.decide(self._facts):
            self._settle_policy(change)
            self._are_egress_ips_stale = True
        for key in self._selection.take_touched()[0]:
            self._addresses |= self._addresses_of(key)
        if self._are_egress_ips_stale:
            self._settle_egress_ips()
        if self._is_own_stale:
            self._settle_own()
        addresses, self._addresses = self._addresses, set()
        for address in addresses:
            self._settle_address(address)
        networks, self._networks = self._networks, set()
        for network in networks:
            self._wanted.put(IpcacheKey(network), self._inside.entry(network))
        addresses, self._node_addresses = self._node_addresses, set()
        for address in addresses:
            self._wanted.put(NodeKey(address), self._inside.believed(address))
        return self._wanted.take_touched()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what the user should know, sorted; as of the last ``settle``."""
        if self._problems is None:
            own = list(pod_addresses(self._node, self._selection, self._holders))
            found = {
                *self._book.problems,
                *self._holders.problems(),
                *tell_defeats(defeats(self._pool), self._book.good),
                *unknown_networks(
                    self._node,
                    self._inside.strangers(own),
                    self._book.families,
                ),
            }
            if self._nodes.get(self._node) is None:
                found.add(missing_node(self._node))
            found.update(self.xdp_rule.problems(self._node, self.uplinks))
            self._problems = tuple(
                sorted(found, key=lambda p: (p.object, p.path, p.message))
            )
        return self._problems

    @property
    def kept_policies(self) -> frozenset[PolicyId]:
        """
        Return the bad policies of which no good version is known.

        What the kernel still holds for them stays as it is.
        """
        return self._book.kept_ids

    @property
    def kept_with_rules(self) -> frozenset[PolicyId]:
        """Return those of ``kept_policies`` of which it is known whom they select."""
        return self._book.kept_ids_with_rules

    @property
    def doubtful_pods(self) -> tuple[DoubtfulPod, ...]:
        """Return the pods of this node that kept policies select."""
        return doubtful_pods(self._node, self._book, self._selection, self._holders)

    @property
    def policy_names(self) -> Mapping[PolicyId, str]:
        """Return how users write each policy, bad ones too."""
        return self._book.names

    @property
    def pod_queries(self) -> frozenset[PodQuery]:
        """Return which pods this node needs beside its own; as of ``settle``."""
        if self._pod_queries is None:
            self._pod_queries = needed_pods(
                self._node, self._book, self._selection, self._inside
            )
        return self._pod_queries

    @property
    def is_candidate(self) -> bool:
        """Return whether this node could be the gateway of any policy."""
        return self._book.is_candidate

    @property
    def xdp_rule(self) -> XdpRule:
        """Return what says which uplinks have an XDP program; as of ``settle``."""
        return XdpRule(self._hook, bool(self._egress_ips))

    @property
    def facts(self) -> NodeFacts:
        """Return what this node has; as of ``observe``."""
        return self._facts

    @property
    def uplinks(self) -> tuple[Link, ...]:
        """Return the links of this node that lead out; as of ``observe``."""
        return uplinks(self._facts, self._addresses_of_node, self._tunnel.name)

    def local_policies(self) -> tuple[LocalPolicy, ...]:
        """
        Return the policies that select pods of this node, or whose gateway it is.

        By their keys; as of ``settle``.
        """
        return local_policies(self._node, self._pool, self._book, self._selection)

    def _change_node(self, name: NodeName, node: Node | None) -> None:
        old = self._nodes.get(name)
        if old == node:
            return
        addresses = {a for n in (old, node) if n is not None for a in n.addresses}
        self._book.touch_nodes(self._nodes.put(name, node), addresses)
        self._selection.put_node(name, node.labels if node is not None else None)
        self._networks.update(self._inside.replace_node(old, node))
        self._node_addresses |= addresses
        if place_of_pods(old) != place_of_pods(node):
            for key in self._selection.pods_on(name):
                self._addresses |= self._addresses_of(key)
        if name == self._node:
            self._is_own_stale = True

    def _settle_policy(self, change: FateChange) -> None:
        for network in self._covering.replace(change.key, change.old, change.new):
            self._wanted.put(network, self._covering.entry(network))
        for key in self._selection.pods_of(change.key):
            self._addresses |= self._addresses_of(key)

    @property
    def _addresses_of_node(self) -> frozenset[Address]:
        node = self._nodes.get(self._node)
        return frozenset(node.addresses if node is not None else ())

    def _settle_own(self) -> None:
        """Find this node's own addresses and attachments again."""
        self._is_own_stale = False
        of_node = self._addresses_of_node
        own = of_node | link_addresses(self._facts)
        self._addresses |= own ^ self._own
        self._own = own
        wanted = attachment_entries(
            self._facts, of_node, self._tunnel.name, self.xdp_rule
        )
        for key in (*self._attached, *wanted):
            self._wanted.put(key, wanted.get(key))
        self._attached = tuple(wanted)

    def _settle_egress_ips(self) -> None:
        self._are_egress_ips_stale = False
        egress_ips = self._book.egress_ips
        self._addresses |= egress_ips ^ self._egress_ips
        self._is_own_stale |= bool(egress_ips) != bool(self._egress_ips)
        self._egress_ips = egress_ips

    def _settle_address(self, address: Address) -> None:
        """Bring all that *address* has up to date: its present holder's, or nothing."""
        pod = self._holders.holder(address)
        lots = self._lots(pod) if pod is not None else ()
        is_local = pod is not None and pod.node == self._node
        shared = self._pool.take(lots, family_of(address), is_local=is_local)
        self._wanted.put_rows(RowsKey(address), shared.rows or None)
        self._wanted.put(
            EndpointKey(address), self._endpoint(address, pod, lots, shared)
        )
        if EndpointKey(address) in self._wanted.touched:
            # What the former pod left, and partial knowledge kept, is not for this one.
            self._wanted.touched.add(RowsKey(address))
        if self._inside.place(address, pod.node if pod is not None else None):
            self._networks.add(ip_network(address))

    def _lots(self, pod: Endpoint) -> tuple[Lot, ...]:
        """Return the policies that select *pod*, oldest first, with its seats."""
        if pod.node != self._node and not self._book.is_any_here:
            return ()
        key = pod_key(pod)
        fates = [
            fate
            for policy in self._selection.policies_of(key)
            if (fate := self._book.fates.get(policy)) is not None
        ]
        if pod.node != self._node and not any(self._book.is_here(f.key) for f in fates):
            return ()
        fates.sort(key=lambda fate: fate.seniority)
        return tuple((fate, fate.seat_of(key)) for fate in fates)

    def _endpoint(
        self,
        address: Address,
        pod: Endpoint | None,
        lots: tuple[Lot, ...],
        shared: SharedRows,
    ) -> EndpointEntry | None:
        """
        Return who lives at *address* on this node; the host wins a conflict.

        Without its namespace's labels nobody can say whether a policy covers a pod;
        left out, it is unknown to the datapath, which drops its covered packets.
        """
        if address in self._own:
            is_egress_ip = address in self._egress_ips
            return EndpointEntry(EndpointFlag.HOST, is_egress_ip=is_egress_ip)
        if pod is None or pod.node != self._node:
            return None
        if not self._selection.is_known(pod_key(pod)):
            return None
        return EndpointEntry(
            EndpointFlag.POD,
            is_other_family=not shared.rows
            and any(fate.reach.families for fate, _ in lots),
            is_selected=bool(shared.rows),
            owner=pod.incarnation,
        )

    def _addresses_of(self, key: str) -> set[Address]:
        pod = self._selection.pod(key)
        return set(pod.addresses) if pod and holds_addresses(pod) else set()

    def _forget_answers(self) -> None:
        self._problems = None
        self._pod_queries = None
