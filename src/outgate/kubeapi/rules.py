"""
What single kinds ask beyond their schema: computed fields and forbidden changes.

What it is: two tables, kind to function: ``COMPLETE`` fills in what the server
computes, ``CHECK_CHANGE`` refuses what may not change.
What it is not: admission of any other sort; no quota, no security policy.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable

from outgate.kubeapi.status import Cause
from outgate.kubeapi.wire import JsonObject

Complete = Callable[[JsonObject], None]
CheckChange = Callable[[JsonObject, JsonObject], list[Cause]]


def _complete_pod(pod: JsonObject) -> None:
    spec = pod["spec"]
    account = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = account
    containers = (spec.get("initContainers") or []) + spec["containers"]
    for container in containers:
        container.setdefault("imagePullPolicy", _pull_policy(container))
        resources = container["resources"]
        if "limits" in resources:
            resources["requests"] = resources["limits"] | resources.get("requests", {})
    status = pod.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", _quality_of_service(containers))


def _pull_policy(container: JsonObject) -> str:
    last = (container.get("image") or "").rpartition("/")[2]
    has_tag = ":" in last or "@" in last
    return "IfNotPresent" if has_tag and not last.endswith(":latest") else "Always"


def _quality_of_service(containers: list[JsonObject]) -> str:
    resources = [container["resources"] for container in containers]
    if not any(r.get("requests") or r.get("limits") for r in resources):
        return "BestEffort"
    for one in resources:
        limits = one.get("limits") or {}
        if not {"cpu", "memory"} <= limits.keys() or one.get("requests") != limits:
            return "Burstable"
    return "Guaranteed"


_POD_MAY_CHANGE = ("activeDeadlineSeconds", "tolerations", "schedulingGates")
_POD_CHANGE_REFUSED = (
    "Forbidden: pod updates may not change fields other than "
    "`spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if "
    "it was previously negative)"
)


def _check_pod_change(before: JsonObject, after: JsonObject) -> list[Cause]:
    if _fixed_part(before) == _fixed_part(after):
        return []
    return [Cause("FieldValueForbidden", _POD_CHANGE_REFUSED, "spec")]


def _fixed_part(pod: JsonObject) -> JsonObject:
    spec: JsonObject = copy.deepcopy(pod["spec"])
    for name in _POD_MAY_CHANGE:
        spec.pop(name, None)
    for container in spec["containers"] + (spec.get("initContainers") or []):
        container.pop("image", None)
    return spec


def _complete_namespace(namespace: JsonObject) -> None:
    name = namespace["metadata"]["name"]
    labels = namespace["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = name
    namespace.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    namespace.setdefault("status", {}).setdefault("phase", "Active")


def _complete_secret(secret: JsonObject) -> None:
    texts = secret.pop("stringData", None)
    if texts:
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in texts.items()}
        secret["data"] = (secret.get("data") or {}) | encoded


def _complete_service(service: JsonObject) -> None:
    spec = service.setdefault("spec", {})
    for port in spec.get("ports") or []:
        port.setdefault("targetPort", port["port"])
    if spec.get("clusterIP"):
        spec["clusterIPs"] = [spec["clusterIP"]]
        is_ipv6 = ":" in str(spec["clusterIP"])
        spec.setdefault("ipFamilies", ["IPv6" if is_ipv6 else "IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    service.setdefault("status", {}).setdefault("loadBalancer", {})


def _check_service_change(before: JsonObject, after: JsonObject) -> list[Cause]:
    old = before["spec"].get("clusterIP")
    if not old or after["spec"].get("clusterIP") == old:
        return []
    text = f'Invalid value: "{after["spec"].get("clusterIP")}": field is immutable'
    return [Cause("FieldValueInvalid", text, "spec.clusterIPs[0]")]


def _check_config_change(before: JsonObject, after: JsonObject) -> list[Cause]:
    if not before.get("immutable"):
        return []
    parts = ("data", "binaryData", "immutable")
    if all(before.get(part) == after.get(part) for part in parts):
        return []
    text = "Forbidden: field is immutable when `immutable` is set"
    return [Cause("FieldValueForbidden", text, "data")]


COMPLETE: dict[str, Complete] = {
    "Pod": _complete_pod,
    "Namespace": _complete_namespace,
    "Secret": _complete_secret,
    "Service": _complete_service,
}
CHECK_CHANGE: dict[str, CheckChange] = {
    "Pod": _check_pod_change,
    "Service": _check_service_change,
    "ConfigMap": _check_config_change,
    "Secret": _check_config_change,
}
