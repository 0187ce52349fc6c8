"""
Start sandboxes, and make the lab's hosts from them.

What this is: the callers' side of ``sandbox``, and the one function that brings up
every host of the topology with its cables.
What this is not: pods; ``runtime`` starts sandboxes for those.
"""

import subprocess
import sys
from collections.abc import Mapping

import msgspec

from outgate.lab import network
from outgate.lab.errors import LabError
from outgate.lab.process import ProcessId
from outgate.lab.records import read_record, write_record
from outgate.lab.sandbox import Kind, SandboxSpec
from outgate.lab.settings import LabSettings, StateFolder
from outgate.lab.topology import Node, Topology

WIRE = "docker"


def sandbox_command(spec: SandboxSpec) -> list[str]:
    """The command that makes *spec* and prints the holder's record."""
    text = msgspec.json.encode(spec).decode()
    return [sys.executable, "-I", "-m", "outgate.lab.sandbox", text]


def read_holder(output: bytes, errors: bytes, hostname: str) -> ProcessId:
    """Errors: LabError with the last line that the sandbox program printed."""
    if output:
        return msgspec.json.decode(output, type=ProcessId)
    reason = errors.decode(errors="replace").strip().rpartition("\n")[2]
    raise LabError(f"cannot make the namespaces of {hostname}: {reason}")


def hold(spec: SandboxSpec) -> ProcessId:
    """Make the namespaces of *spec* and return the process that holds them."""
    done = subprocess.run(sandbox_command(spec), capture_output=True, check=False)
    return read_holder(done.stdout, done.stderr, spec.hostname)


def host_spec(topology: Topology, name: str, folder: StateFolder) -> SandboxSpec:
    """The namespaces of host *name* of the topology, or of the wire itself."""
    is_node = any(node.name == name for node in topology.nodes)
    return SandboxSpec(
        kind=Kind.NODE if is_node else Kind.HOST,
        hostname=name,
        scratch=str(folder.scratch),
        keep=str(folder.root) if is_node else None,
        hosts=topology.local_names() + topology.host_names(),
        sysctls=network.host_sysctls(topology, is_node=is_node),
    )


def build_hosts(
    topology: Topology, settings: LabSettings, folder: StateFolder
) -> dict[str, ProcessId]:
    """Make every host of *topology*, cable them, and write down who holds them."""
    names = [WIRE, *(host.name for host in topology.hosts)]
    holders = {name: hold(host_spec(topology, name, folder)) for name in names}
    pids = {name: holder.pid for name, holder in holders.items()}
    batch = ["ip", "-batch", "-"]
    network.run_in_network(pids[WIRE], batch, network.bridge_commands(topology, pids))
    for host in topology.hosts:
        commands = network.host_commands(topology, host.name)
        network.run_in_network(pids[host.name], batch, commands)
        if isinstance(host, Node):
            rules = network.masquerade_rules(topology)
            network.run_in_network(pids[host.name], ["nft", "-f", "-"], rules)
    if settings.has_xdp:
        _prepare_xdp(topology, pids)
    for name, holder in holders.items():
        write_record(folder.holders / f"{name}.json", holder)
    return holders


def _prepare_xdp(topology: Topology, pids: Mapping[str, int]) -> None:
    """Make the cables such that XDP programs can take what comes over them."""
    for command in network.xdp_port_commands(topology):
        network.run_in_network(pids[WIRE], command, "")
    for host in topology.hosts:
        network.run_in_network(pids[host.name], network.COMPLETE_CHECKSUMS, "")


def read_host(folder: StateFolder, name: str) -> ProcessId:
    """The process that holds the namespaces of host *name*."""
    return read_record(folder.holders / f"{name}.json", ProcessId)
