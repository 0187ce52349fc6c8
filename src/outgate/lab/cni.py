"""
Pod cables by the reference CNI plugins, spoken to as the CNI specification says.

What this is: the configuration of the two networks the lab offers, and the calls
ADD, CHECK and DEL: environment in, configuration on standard input, JSON out.
What this is not: wiring of our own; the plugins are Debian's.

Plugins run in the network and mount namespaces of the pod's node, as under a real
kubelet.  Source: CNI specification 1.0.0, sections 2 to 5.
"""

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import msgspec

from outgate.lab.errors import LabError
from outgate.lab.settings import PodNetwork
from outgate.state.entries import Address, Network

PLUGINS = Path("/usr/lib/cni")
VERSION = "1.0.0"
INTERFACE = "eth0"
BRIDGE = "cni0"
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True, slots=True)
class Attachment:
    """
    One pod's place in one node's network.

    *node_holder* and *pod_holder* are the pids that hold the namespaces.
    """

    namespace: str
    name: str
    uid: str
    node_holder: int
    pod_holder: int
    requested: tuple[Address, ...] = ()


def network_configuration(
    network: PodNetwork, pods: Sequence[Network], mtu: int, folder: Path
) -> dict[str, Any]:
    """
    The configuration of a node's pod network; *pods* has one network per family.

    The masquerade is the node's own (``network.masquerade_rules``), not the
    plugin's, which would also translate what stays among pods.
    """
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": str(subnet)}] for subnet in pods],
        "routes": [{"dst": EVERYWHERE[subnet.version]} for subnet in pods],
        "dataDir": str(folder),
    }
    common = {
        "cniVersion": VERSION,
        "name": "lab",
        "type": network.value,
        "mtu": mtu,
        "ipMasq": False,
        "ipam": ipam,
    }
    match network:
        case PodNetwork.PTP:
            return common
        case PodNetwork.BRIDGE:
            return common | {
                "bridge": BRIDGE,
                "isGateway": True,
                "isDefaultGateway": False,
                "hairpinMode": True,
            }


def cni_environment(
    verb: str, attachment: Attachment, interface: str
) -> dict[str, str]:
    """The parameters of one call; without a holder the namespace is already gone."""
    arguments = (
        "IgnoreUnknown=1",
        f"K8S_POD_NAMESPACE={attachment.namespace}",
        f"K8S_POD_NAME={attachment.name}",
        f"K8S_POD_UID={attachment.uid}",
    )
    holder = attachment.pod_holder
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": attachment.uid,
        "CNI_NETNS": f"/proc/{holder}/ns/net" if holder else "",
        "CNI_IFNAME": interface,
        "CNI_ARGS": ";".join(arguments),
        "CNI_PATH": str(PLUGINS),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }


async def _call(
    verb: str, attachment: Attachment, configuration: Mapping[str, Any], interface: str
) -> Any:
    """Errors: LabError with the plugin's own message."""
    plugin = PLUGINS / configuration["type"]
    node = f"/proc/{attachment.node_holder}/ns"
    command = ["nsenter", f"--net={node}/net", f"--mount={node}/mnt", "--", str(plugin)]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cni_environment(verb, attachment, interface),
    )
    output, errors = await process.communicate(msgspec.json.encode(configuration))
    if process.returncode != 0:
        reason = _reason(output) or errors.decode(errors="replace").strip()
        raise LabError(f"plugin {plugin.name} {verb}: {reason}")
    return msgspec.json.decode(output) if output.strip() else {}


def _reason(output: bytes) -> str:
    """The message of a CNI error result, empty if *output* is none."""
    try:
        result = msgspec.json.decode(output)
    except msgspec.DecodeError:
        return output.decode(errors="replace").strip()
    return ": ".join(str(result[key]) for key in ("msg", "details") if result.get(key))


def addresses_of(result: Mapping[str, Any]) -> tuple[Address, ...]:
    """
    The pod's addresses in an ADD result.

    >>> addresses_of({"ips": [{"address": "10.0.1.42/24"}]})
    (IPv4Address('10.0.1.42'),)
    """
    entries: Sequence[Mapping[str, str]] = result.get("ips", ())
    return tuple(ip_interface(entry["address"]).ip for entry in entries)


def with_requested(
    configuration: Mapping[str, Any], attachment: Attachment
) -> dict[str, Any]:
    """
    *configuration* as a runtime hands it to ADD for a pod that asks for addresses.

    The plugin's CNI_ARGS take one address only; ``ips`` of a runtime, one per family
    (CNI conventions, "dynamic plugin specific fields").
    """
    if not attachment.requested:
        return dict(configuration)
    wanted = [str(address) for address in attachment.requested]
    return {**configuration, "runtimeConfig": {"ips": wanted}}


LOOPBACK = {"cniVersion": VERSION, "name": "lo", "type": "loopback"}


async def add(attachment: Attachment, configuration: Mapping[str, Any]) -> Any:
    """Cable the pod; returns the plugin's result, which ``check`` needs again."""
    await _call("ADD", attachment, LOOPBACK, "lo")
    asked = with_requested(configuration, attachment)
    result = await _call("ADD", attachment, asked, INTERFACE)
    if not addresses_of(result):
        raise LabError(f"plugin {configuration['type']} gave the pod no address")
    return result


async def check(
    attachment: Attachment, configuration: Mapping[str, Any], result: Any
) -> None:
    """Ask whether the cable is still as ``add`` left it."""
    previous = {**configuration, "prevResult": result}
    await _call("CHECK", attachment, previous, INTERFACE)


async def delete(attachment: Attachment, configuration: Mapping[str, Any]) -> None:
    """Take the cable away and give the address back; also when half of it is gone."""
    await _call("DEL", attachment, configuration, INTERFACE)
