"""
The subresources that only pods have: exec, log, binding.

What it is: checks of the pod and the container, then the backend or the store.
What it is not: attach, port-forward and proxy; they are not served.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.backend import ExecRequest, LogRequest, PodBackend
from outgate.kubeapi.execws import serve_exec
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import MERGE_PATCH, Patch, patch
from outgate.kubeapi.protocol import Location, is_true, optional_integer
from outgate.kubeapi.status import ApiError, bad_request, conflict, not_implemented
from outgate.kubeapi.streams import serve_log
from outgate.kubeapi.wire import JsonObject

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def choose_container(pod: JsonObject, wanted: str | None) -> str:
    """The container that is meant; the only one, when none is named."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    names = [container["name"] for container in spec["containers"]]
    names += [container["name"] for container in spec.get("initContainers") or ()]
    if wanted:
        if wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    annotations = pod["metadata"].get("annotations") or {}
    if annotations.get(_DEFAULT_CONTAINER) in names:
        return str(annotations[_DEFAULT_CONTAINER])
    if len(spec["containers"]) > 1:
        raise bad_request(
            f"a container name must be specified for pod {name}, choose one of: "
            f"[{' '.join(names)}]"
        )
    return str(names[0])


async def answer_exec(
    request: web.Request,
    objects: Objects,
    location: Location,
    backend: PodBackend | None,
) -> web.StreamResponse:
    pod = objects.require(location.resource, location.key)
    query = request.query
    command = tuple(query.getall("command", []))
    container = choose_container(pod, query.get("container"))
    if not command:
        raise bad_request("you must specify at least one command for the container")
    if backend is None:
        raise not_implemented("exec: this API runs without a backend for pods")
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise not_implemented("exec is served over WebSockets only, not over SPDY")
    wanted = ExecRequest(
        namespace=location.namespace,
        pod=location.name,
        container=container,
        command=command,
        stdin=is_true(query, "stdin"),
        tty=is_true(query, "tty"),
    )
    return await serve_exec(request, wanted, backend)


async def answer_log(
    request: web.Request,
    objects: Objects,
    location: Location,
    backend: PodBackend | None,
) -> web.StreamResponse:
    pod = objects.require(location.resource, location.key)
    query = request.query
    container = choose_container(pod, query.get("container"))
    if backend is None:
        raise not_implemented("logs: this API runs without a backend for pods")
    if not pod["spec"].get("nodeName"):
        raise bad_request(
            f'container "{container}" in pod "{location.name}" is waiting to start: '
            "no node has taken the pod yet"
        )
    wanted = LogRequest(
        namespace=location.namespace,
        pod=location.name,
        container=container,
        follow=is_true(query, "follow"),
        tail_lines=optional_integer(query, "tailLines"),
        previous=is_true(query, "previous"),
        timestamps=is_true(query, "timestamps"),
        since_seconds=optional_integer(query, "sinceSeconds"),
        limit_bytes=optional_integer(query, "limitBytes"),
    )
    return await serve_log(request, backend.logs(wanted))


def bind(
    objects: Objects, location: Location, body: Any, options: WriteOptions
) -> JsonObject:
    """Give a pod its node, once; this is what a scheduler calls."""
    target = (body.get("target") or {}) if isinstance(body, dict) else {}
    node = target.get("name")
    if not node or target.get("kind", "Node") != "Node":
        raise bad_request("target: a binding needs the name of a node")
    pods = location.resource
    pod = objects.require(pods, location.key)
    if pod["spec"].get("nodeName"):
        raise conflict(pods.kind.resource, location.name)
    if "deletionTimestamp" in pod["metadata"]:
        raise ApiError(409, "Conflict", f'pod "{location.name}" is being deleted', {})
    if options.dry_run:
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
    pod["spec"]["nodeName"] = node
    objects.put(pods, pod)
    scheduled = {
        "type": "PodScheduled",
        "status": "True",
        "lastTransitionTime": objects.now(),
    }
    conditions = (pod.get("status") or {}).get("conditions") or []
    kept = [one for one in conditions if one.get("type") != "PodScheduled"]
    change = Patch(MERGE_PATCH, {"status": {"conditions": [*kept, scheduled]}})
    status = WriteOptions(manager=options.manager, subresource="status")
    patch(objects, pods, location.key, change, status)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
