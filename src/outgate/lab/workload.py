"""
What a Pod object asks of the lab, as values.

What this is: pure; Kubernetes JSON in, ``Workload`` out.  Fields that the lab does
not act on are named in ``ignored``, so that the user is told.
What this is not: validation; the API did that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from outgate.lab.topology import Topology
from outgate.state.entries import Address

IP_ANNOTATION = "lab.outgate.io/ip"
DEFAULT_GRACE_SECONDS = 30
DEFAULT_PROBE_SECONDS = 10
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IGNORED_POD_FIELDS = ("initContainers", "ephemeralContainers", "volumes")
IGNORED_CONTAINER_FIELDS = (
    "envFrom",
    "lifecycle",
    "livenessProbe",
    "startupProbe",
    "volumeMounts",
)

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """A ``readinessProbe.httpGet``; an empty *host* is the pod's own address."""

    host: str
    port: int
    path: str
    period_seconds: int


@dataclass(frozen=True, slots=True)
class Container:
    """One container; an empty *command* means that it only waits."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    working_folder: str
    probe: HttpProbe | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """A Pod, as far as the lab acts on it."""

    namespace: str
    name: str
    uid: str
    node: str
    hostname: str
    uses_host_network: bool
    restart_policy: str
    containers: tuple[Container, ...]
    host_aliases: tuple[tuple[str, str], ...]
    requested_ips: tuple[Address, ...]
    is_deleting: bool
    grace_seconds: int
    ignored: tuple[str, ...]


def parse_workload(pod: Json) -> Workload:
    """Read *pod*, an object of the API, bound to a node or not yet."""
    metadata, spec = pod["metadata"], pod["spec"]
    grace = metadata.get("deletionGracePeriodSeconds")
    if grace is None:
        grace = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    return Workload(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        node=spec.get("nodeName", ""),
        hostname=spec.get("hostname") or metadata["name"],
        uses_host_network=bool(spec.get("hostNetwork")),
        restart_policy=spec.get("restartPolicy", "Always"),
        containers=tuple(_container(item, pod) for item in spec["containers"]),
        host_aliases=tuple(
            (alias["ip"], " ".join(alias.get("hostnames", ())))
            for alias in spec.get("hostAliases") or ()
        ),
        requested_ips=_requested_ips(metadata.get("annotations") or {}),
        is_deleting="deletionTimestamp" in metadata,
        grace_seconds=grace,
        ignored=tuple(_ignored(metadata, spec)),
    )


def _container(container: Json, pod: Json) -> Container:
    command = [*(container.get("command") or ()), *(container.get("args") or ())]
    environment = {"PATH": DEFAULT_PATH, "HOME": "/root", "LANG": "C.UTF-8"}
    environment["HOSTNAME"] = pod["spec"].get("hostname") or pod["metadata"]["name"]
    for variable in container.get("env") or ():
        value = variable.get("value")
        if value is None:
            value = _field_value(variable.get("valueFrom") or {}, pod)
        environment[variable["name"]] = value
    return Container(
        name=container["name"],
        image=container.get("image", ""),
        command=tuple(command),
        environment=tuple(environment.items()),
        working_folder=container.get("workingDir") or "/",
        probe=_probe(container.get("readinessProbe") or {}),
    )


def _probe(probe: Json) -> HttpProbe | None:
    """The probe, when it is one of those the lab runs: HTTP on a numbered port."""
    get = probe.get("httpGet") or {}
    if not isinstance(get.get("port"), int):
        return None
    return HttpProbe(
        host=get.get("host", ""),
        port=get["port"],
        path=get.get("path") or "/",
        period_seconds=probe.get("periodSeconds", DEFAULT_PROBE_SECONDS),
    )


def _field_value(source: Json, pod: Json) -> str:
    """The value of an ``env[].valueFrom.fieldRef``; empty for what the lab lacks."""
    match (source.get("fieldRef") or {}).get("fieldPath"):
        case "metadata.name" | "metadata.namespace" | "metadata.uid" as path:
            return str(pod["metadata"][path.removeprefix("metadata.")])
        case "spec.nodeName":
            return str(pod["spec"].get("nodeName", ""))
        case "status.hostIP" | "status.podIP" as path:
            status = pod.get("status") or {}
            return str(status.get(path.removeprefix("status."), ""))
        case "status.hostIPs" | "status.podIPs" as path:
            items = (pod.get("status") or {}).get(path.removeprefix("status.")) or ()
            return ",".join(item["ip"] for item in items)
        case _:
            return ""


def _requested_ips(annotations: Mapping[str, str]) -> tuple[Address, ...]:
    """The addresses asked for, with commas between them; none when one is none."""
    text = annotations.get(IP_ANNOTATION)
    try:
        return tuple(
            ip_address(part.strip()) for part in (text or "").split(",") if text
        )
    except ValueError:
        return ()


def _ignored(metadata: Json, spec: Json) -> list[str]:
    names = [f"spec.{name}" for name in IGNORED_POD_FIELDS if spec.get(name)]
    annotations = metadata.get("annotations") or {}
    if annotations.get(IP_ANNOTATION) and not _requested_ips(annotations):
        names.append(
            f"metadata.annotations[{IP_ANNOTATION}] "
            f"({annotations[IP_ANNOTATION]!r} is no IP address)"
        )
    for number, container in enumerate(spec["containers"]):
        names += [
            f"spec.containers[{number}].{name}"
            for name in IGNORED_CONTAINER_FIELDS
            if container.get(name)
        ]
        if (
            container.get("readinessProbe")
            and _probe(container["readinessProbe"]) is None
        ):
            names.append(f"spec.containers[{number}].readinessProbe")
    return names


def hosts_text(
    workload: Workload, addresses: Iterable[Address], topology: Topology
) -> str:
    """The ``/etc/hosts`` of a pod: itself, the lab's hosts, and its own aliases."""
    aliases = "".join(f"{ip}\t{names}\n" for ip, names in workload.host_aliases)
    own = "".join(f"{address}\t{workload.hostname}\n" for address in addresses)
    return topology.local_names() + own + topology.host_names() + aliases
