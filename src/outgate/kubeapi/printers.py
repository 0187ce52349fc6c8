"""
What ``kubectl get`` shows of each built-in kind.

What it is: per kind its columns and a function from an object to one row, with the
words and the order of the real API.
What it is not: layout; kubectl draws the table, ``table`` packs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from outgate.kubeapi.wire import JsonObject, parse_time

Row = list[Any]
_NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Printer:
    """Column names, how many of them are only for ``-o wide``, and the row."""

    columns: tuple[str, ...]
    wide: int
    row: Callable[[JsonObject, datetime], Row]


def human_duration(span: timedelta) -> str:
    """
    Write an age as kubectl does: exact when short, coarse when long.

    >>> human_duration(timedelta(minutes=3, seconds=7))
    '3m7s'
    """
    seconds = int(span.total_seconds())
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 0:
        return "0s" if seconds >= -1 else "<invalid>"
    if minutes < 2:
        return f"{seconds}s"
    if minutes < 10:
        return _pair(minutes, "m", seconds % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _pair(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 8 * 365:
        return _pair(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return (
        f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
    )


def age(text: object, now: datetime) -> str:
    moment = parse_time(text)
    return "<unknown>" if moment is None else human_duration(now - moment)


def _name(obj: JsonObject) -> str:
    return str(obj["metadata"]["name"])


def _created(obj: JsonObject, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def pod_state(pod: JsonObject) -> str:
    """The STATUS of a pod: its phase, or what keeps it from running."""
    status = pod.get("status") or {}
    phase = status.get("phase", "Unknown")
    state = status.get("reason") or phase
    state = _init_state(pod, status) or _container_state(status, state)
    if "deletionTimestamp" in pod["metadata"] and phase not in ("Succeeded", "Failed"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return str(state)


def _init_state(pod: JsonObject, status: JsonObject) -> str | None:
    total = len(pod["spec"].get("initContainers") or ())
    for done, container in enumerate(status.get("initContainerStatuses") or ()):
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if ended is not None:
            return f"Init:{ended.get('reason') or 'ExitCode:' + str(ended['exitCode'])}"
        if waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        if not container.get("started"):
            return f"Init:{done}/{total}"
    return None


def _container_state(status: JsonObject, state: str) -> str:
    is_running = False
    for container in reversed(status.get("containerStatuses") or []):
        now = container.get("state") or {}
        waiting, ended = now.get("waiting") or {}, now.get("terminated")
        if waiting.get("reason"):
            state = waiting["reason"]
        elif ended is not None:
            state = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
        elif container.get("ready") and "running" in now:
            is_running = True
    if state == "Completed" and is_running:
        return "Running" if _condition(status, "Ready") == "True" else "NotReady"
    return state


def _condition(status: JsonObject, kind: str) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            return str(condition.get("status"))
    return None


def _pod(pod: JsonObject, now: datetime) -> Row:
    spec, status = pod["spec"], pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    ready = sum(bool(container.get("ready")) for container in containers)
    gates = spec.get("readinessGates") or []
    met = sum(_condition(status, gate["conditionType"]) == "True" for gate in gates)
    return [
        _name(pod),
        f"{ready}/{len(spec['containers'])}",
        pod_state(pod),
        _restarts(containers, now),
        _created(pod, now),
        status.get("podIP") or _NONE,
        spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        f"{met}/{len(gates)}" if gates else _NONE,
    ]


def _restarts(containers: list[JsonObject], now: datetime) -> str:
    count = sum(container.get("restartCount", 0) for container in containers)
    ends = [
        ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
        for container in containers
    ]
    last = max((end for end in map(parse_time, ends) if end), default=None)
    if not count or last is None:
        return str(count)
    return f"{count} ({human_duration(now - last)} ago)"


def _node(node: JsonObject, now: datetime) -> Row:
    status = node.get("status") or {}
    about = status.get("nodeInfo") or {}
    state = {"True": "Ready", None: "Unknown"}.get(
        _condition(status, "Ready"), "NotReady"
    )
    if (node.get("spec") or {}).get("unschedulable"):
        state += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    roles = sorted(
        label.removeprefix(prefix) for label in labels if label.startswith(prefix)
    )
    return [
        _name(node),
        state,
        ",".join(roles) or _NONE,
        _created(node, now),
        about.get("kubeletVersion", ""),
        _node_address(status, "InternalIP"),
        _node_address(status, "ExternalIP"),
        about.get("osImage") or "<unknown>",
        about.get("kernelVersion") or "<unknown>",
        about.get("containerRuntimeVersion") or "<unknown>",
    ]


def _node_address(status: JsonObject, kind: str) -> str:
    for address in status.get("addresses") or ():
        if address.get("type") == kind:
            return str(address.get("address"))
    return _NONE


def _namespace(namespace: JsonObject, now: datetime) -> Row:
    phase = (namespace.get("status") or {}).get("phase")
    return [_name(namespace), phase, _created(namespace, now)]


def _service(service: JsonObject, now: datetime) -> Row:
    spec = service.get("spec") or {}
    ports = [
        f"{port['port']}"
        + (f":{port['nodePort']}" if port.get("nodePort") else "")
        + f"/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    ]
    selector = [f"{key}={value}" for key, value in (spec.get("selector") or {}).items()]
    external = ",".join(spec.get("externalIPs") or ()) or spec.get("externalName")
    return [
        _name(service),
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or _NONE,
        external or _NONE,
        ",".join(ports) or _NONE,
        _created(service, now),
        ",".join(selector) or _NONE,
    ]


def _config_map(config: JsonObject, now: datetime) -> Row:
    count = len(config.get("data") or ()) + len(config.get("binaryData") or ())
    return [_name(config), count, _created(config, now)]


def _secret(secret: JsonObject, now: datetime) -> Row:
    count = len(secret.get("data") or ())
    return [_name(secret), secret.get("type"), count, _created(secret, now)]


def _service_account(account: JsonObject, now: datetime) -> Row:
    count = len(account.get("secrets") or ())
    return [_name(account), count, _created(account, now)]


def _event(event: JsonObject, now: datetime) -> Row:
    about = event["involvedObject"]
    source = event.get("source") or {}
    who = [source.get("component") or event.get("reportingComponent") or ""]
    if source.get("host"):
        who.append(source["host"])
    first = event.get("firstTimestamp") or event.get("eventTime")
    last = (event.get("series") or {}).get("lastObservedTime")
    last = last or event.get("lastTimestamp") or first
    return [
        age(last, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}",
        (event.get("message") or "").strip(),
        about.get("fieldPath", ""),
        ", ".join(who),
        age(first, now),
        event.get("count") or 1,
        _name(event),
    ]


def _lease(lease: JsonObject, now: datetime) -> Row:
    holder = (lease.get("spec") or {}).get("holderIdentity", "")
    return [_name(lease), holder, _created(lease, now)]


def _service_network(network: JsonObject, now: datetime) -> Row:
    cidrs = (network.get("spec") or {}).get("cidrs") or ()
    return [_name(network), ",".join(cidrs), _created(network, now)]


def _endpoint_slice(found: JsonObject, now: datetime) -> Row:
    ports = [str(port.get("port", "*")) for port in found.get("ports") or ()]
    addresses = [a for one in found.get("endpoints") or () for a in one["addresses"]]
    return [
        _name(found),
        found.get("addressType", ""),
        ",".join(ports) or "<unset>",
        ",".join(addresses) or "<unset>",
        _created(found, now),
    ]


def _definition(crd: JsonObject, now: datetime) -> Row:
    return [_name(crd), crd["metadata"].get("creationTimestamp")]


def plain_row(obj: JsonObject, now: datetime) -> Row:
    return [_name(obj), _created(obj, now)]


PRINTERS: dict[str, Printer] = {
    "Pod": Printer(
        (
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "IP",
            "Node",
            "Nominated Node",
            "Readiness Gates",
        ),
        4,
        _pod,
    ),
    "Node": Printer(
        (
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "Internal-IP",
            "External-IP",
            "OS-Image",
            "Kernel-Version",
            "Container-Runtime",
        ),
        5,
        _node,
    ),
    "Namespace": Printer(("Name", "Status", "Age"), 0, _namespace),
    "Service": Printer(
        ("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector"),
        1,
        _service,
    ),
    "ConfigMap": Printer(("Name", "Data", "Age"), 0, _config_map),
    "Secret": Printer(("Name", "Type", "Data", "Age"), 0, _secret),
    "ServiceAccount": Printer(("Name", "Secrets", "Age"), 0, _service_account),
    "Event": Printer(
        (
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "Message",
            "Subobject",
            "Source",
            "First Seen",
            "Count",
            "Name",
        ),
        5,
        _event,
    ),
    "ServiceCIDR": Printer(("Name", "CIDRs", "Age"), 0, _service_network),
    "EndpointSlice": Printer(
        ("Name", "AddressType", "Ports", "Endpoints", "Age"), 0, _endpoint_slice
    ),
    "Lease": Printer(("Name", "Holder", "Age"), 0, _lease),
    "CustomResourceDefinition": Printer(("Name", "Created At"), 0, _definition),
}
