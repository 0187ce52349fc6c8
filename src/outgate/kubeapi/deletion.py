"""
Deleting: at once, gracefully, or when the last finalizer is gone.

What it is: a pod on a node only gets a ``deletionTimestamp`` until its kubelet
deletes it with no grace; whatever has finalizers waits for them; a namespace or a
CRD takes along what is in it.
What it is not: garbage collection. ``ownerReferences`` are kept, not followed, and
every propagation policy means "this object".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from outgate.kubeapi.crds import Resource
from outgate.kubeapi.objects import CRD_KIND, Objects, check_preconditions
from outgate.kubeapi.status import forbidden, success
from outgate.kubeapi.storage import Key
from outgate.kubeapi.wire import JsonObject, format_time, parse_time

_PROTECTED_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")

LONGEST_GRACE = 10**9
"""Seconds, some 30 years: a later end has no date that a timestamp can say."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """*grace_seconds* is ``None`` for the object's own; the rest are conditions."""

    grace_seconds: int | None = None
    uid: str | None = None
    version: str | None = None
    dry_run: bool = False


def delete(
    objects: Objects, resource: Resource, key: Key, options: DeleteOptions
) -> JsonObject:
    """Delete one object; the answer is the object if it lives on, else a Status."""
    obj = objects.require(resource, key)
    check_preconditions(resource, obj, options.uid, options.version)
    kind = resource.kind
    if kind.kind == "Namespace" and key[1] in _PROTECTED_NAMESPACES:
        why = "this namespace may not be deleted"
        raise forbidden(kind.resource, key[1], why)
    grace = _grace(obj, options) if kind.kind == "Pod" and not kind.custom else 0
    if options.dry_run:
        return obj if grace else _removed(resource, obj)
    if grace > 0:
        _mark(objects, resource, obj, grace)
        return obj
    if obj["metadata"].get("finalizers"):
        _mark(objects, resource, obj, 0)
        return obj
    if kind.kind in ("Namespace", CRD_KIND) and not kind.custom:
        _empty(objects, resource, obj)
        left = objects.find(resource, key)
        return _removed(resource, obj) if left is None else left
    objects.remove(resource, obj)
    return obj if kind.kind == "Pod" else _removed(resource, obj)


def _removed(resource: Resource, obj: JsonObject) -> JsonObject:
    meta = obj["metadata"]
    details: JsonObject = {"name": meta["name"], "kind": resource.kind.plural}
    if resource.kind.group:
        details["group"] = resource.kind.group
    return success(details | {"uid": meta["uid"]})


def _grace(pod: JsonObject, options: DeleteOptions) -> int:
    """Seconds that the pod's node gets; none where no node has taken it."""
    phase = (pod.get("status") or {}).get("phase")
    if not pod["spec"].get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    if options.grace_seconds is not None:
        return max(options.grace_seconds, 0)
    return int(pod["spec"].get("terminationGracePeriodSeconds", 30))


def _mark(objects: Objects, resource: Resource, obj: JsonObject, grace: int) -> None:
    """Set when the object will be gone; a later date never replaces an earlier one."""
    meta = obj["metadata"]
    end = objects.clock() + timedelta(seconds=min(grace, LONGEST_GRACE))
    present = parse_time(meta.get("deletionTimestamp"))
    old_grace = meta.get("deletionGracePeriodSeconds", grace)
    if present is not None and (present <= end or old_grace <= grace):
        return
    meta["deletionTimestamp"] = format_time(end)
    meta["deletionGracePeriodSeconds"] = grace
    if resource.kind.has_generation:
        meta["generation"] = meta.get("generation", 0) + 1
    objects.put(resource, obj)


def _empty(objects: Objects, resource: Resource, holder: JsonObject) -> None:
    """Mark a namespace or CRD as going and delete what is in it."""
    meta = holder["metadata"]
    contents = objects.contents(resource, meta["name"])
    if "deletionTimestamp" not in meta:
        meta["deletionTimestamp"] = objects.now()
        if resource.kind.kind == "Namespace":
            holder.setdefault("status", {})["phase"] = "Terminating"
        objects.put(resource, holder)
    for inner, key in contents:
        if objects.find(inner, key) is not None:
            delete(objects, inner, key, DeleteOptions())
    still_there = objects.find(resource, ("", meta["name"]))
    if still_there and not objects.contents(resource, meta["name"]):
        objects.remove(resource, still_there)


def is_finished(obj: JsonObject) -> bool:
    """Whether an object being deleted has nothing left to wait for."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers"):
        return False
    waits = obj["kind"] in ("Namespace", CRD_KIND)
    return not waits and not meta.get("deletionGracePeriodSeconds")
