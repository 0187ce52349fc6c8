"""
Create, replace, patch: what a write does to the store.

What it is: identity, generation, resourceVersion, the status subresource, and
ownership of fields, in one order for every kind of write.
What it is not: HTTP; ``protocol`` and ``server`` turn requests into these calls.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from outgate.kubeapi.admission import (
    WriteOptions,
    admit,
    require_object,
    settle_place,
)
from outgate.kubeapi.crds import Resource, accept_crd
from outgate.kubeapi.deletion import is_finished
from outgate.kubeapi.fieldsets import leaves
from outgate.kubeapi.merge import json_patch, merge_patch, strategic_merge
from outgate.kubeapi.objects import CRD_KIND, Objects, check_preconditions
from outgate.kubeapi.ownership import Application, Manager, apply, own_update
from outgate.kubeapi.rules import CHECK_CHANGE
from outgate.kubeapi.status import (
    Cause,
    already_exists,
    bad_request,
    forbidden,
    invalid,
    not_found,
    unsupported_media_type,
)
from outgate.kubeapi.storage import Key
from outgate.kubeapi.wire import JsonObject, decode_json, encode_json

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_SERVER_OWNED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)
HEADLESS = "None"
_STATUS_IS_RESET = ("Pod", "Namespace", CRD_KIND)
_KUBECTL = "kubectl"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The object as it is now, whether it is new, and what to warn of."""

    obj: JsonObject
    created: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch's body, decoded, and its media type."""

    media_type: str
    body: Any


def create(
    objects: Objects, resource: Resource, key: Key, body: Any, options: WriteOptions
) -> Outcome:
    """Store a new object; an empty name in *key* takes the body's own."""
    obj = require_object(body, resource)
    settle_place(obj, *key)
    _settle_generated_name(objects, obj)
    return _insert(objects, resource, obj, options, is_apply=False)


def _settle_generated_name(objects: Objects, obj: JsonObject) -> None:
    meta = obj["metadata"]
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = meta["generateName"] + objects.new_uid().replace("-", "")[:5]


def _insert(
    objects: Objects,
    resource: Resource,
    obj: JsonObject,
    options: WriteOptions,
    *,
    is_apply: bool,
) -> Outcome:
    kind, meta = resource.kind, obj["metadata"]
    if kind.namespaced:
        _check_namespace(objects, resource, obj)
    for name in (*_SERVER_OWNED, "resourceVersion"):
        meta.pop(name, None)
    if "status" in kind.subresources and (kind.custom or kind.kind in _STATUS_IS_RESET):
        obj.pop("status", None)
    if kind.kind == "Service" and not kind.custom:
        _assign_cluster_ip(objects, resource, obj)
    warnings = admit(obj, resource, options)
    key = (meta.get("namespace", ""), meta["name"])
    if objects.storage.get(kind.resource, key) is not None:
        raise already_exists(kind.resource, key[1])
    meta["uid"] = objects.new_uid()
    meta["creationTimestamp"] = objects.now()
    if kind.has_generation:
        meta["generation"] = 1
    if kind.kind == CRD_KIND:
        accept_crd(obj, objects.now())
    if not is_apply:
        meta.pop("managedFields", None)
        manager = Manager(options.manager, "Update", kind.api_version)
        own_update(None, obj, manager, resource.schema.node, objects.now())
    if not options.dry_run:
        objects.put(resource, obj)
        if kind.kind == "Namespace":
            _create_default_account(objects, meta["name"])
    return Outcome(obj, created=True, warnings=tuple(warnings))


def _check_namespace(objects: Objects, resource: Resource, obj: JsonObject) -> None:
    name = obj["metadata"].get("namespace", "")
    namespace = objects.find(objects.catalogue.built_in("Namespace"), ("", name))
    if namespace is None:
        raise not_found("namespaces", name)
    if "deletionTimestamp" in namespace["metadata"]:
        why = (
            f"unable to create new content in namespace {name} because it is being "
            "terminated"
        )
        raise forbidden(resource.kind.resource, obj["metadata"].get("name", ""), why)


def _create_default_account(objects: Objects, namespace: str) -> None:
    accounts = objects.catalogue.built_in("ServiceAccount")
    options = WriteOptions(manager="kube-controller-manager")
    create(objects, accounts, (namespace, "default"), {}, options)


def _assign_cluster_ip(objects: Objects, services: Resource, obj: JsonObject) -> None:
    """Give a service the next address; the network's first is the API's own."""
    spec = obj.setdefault("spec", {})
    if not isinstance(spec, dict):
        return
    if spec.get("clusterIP") == HEADLESS:
        spec.setdefault("ipFamilies", [f"IPv{objects.service_network.version}"])
    if spec.get("clusterIP") or spec.get("type") == "ExternalName":
        return
    stored = objects.storage.objects(services.kind.resource)
    taken = {service.field("spec.clusterIP") for service in stored}
    address = objects.service_network[2]
    while str(address) in taken:
        address += 1
    spec["clusterIP"] = str(address)


def replace(
    objects: Objects, resource: Resource, key: Key, body: Any, options: WriteOptions
) -> Outcome:
    """Store *body* in place of what is there."""
    after = require_object(body, resource)
    settle_place(after, *key)
    before = objects.require(resource, key)
    if resource.kind.custom and not after["metadata"].get("resourceVersion"):
        text = "Invalid value: 0x0: must be specified for an update"
        cause = Cause("FieldValueInvalid", text, "metadata.resourceVersion")
        raise invalid(resource.kind.group_kind, key[1], [cause])
    return _update(objects, resource, before, after, options)


def patch(
    objects: Objects, resource: Resource, key: Key, change: Patch, options: WriteOptions
) -> Outcome:
    """Apply one patch; an apply creates what is not there."""
    if change.media_type == APPLY_PATCH:
        return _apply(objects, resource, key, change.body, options)
    before = objects.require(resource, key)
    edited = _edit(copy.deepcopy(before), change, resource)
    after = require_object(edited, resource)
    settle_place(after, *key)
    return _update(objects, resource, before, after, options)


def _edit(target: JsonObject, change: Patch, resource: Resource) -> Any:
    """The object after *change*; which media types there are depends on the kind."""
    if change.media_type == JSON_PATCH:
        return json_patch(target, change.body)
    if change.media_type == MERGE_PATCH:
        return merge_patch(target, change.body)
    if change.media_type == STRATEGIC_PATCH and not resource.kind.custom:
        return strategic_merge(target, change.body, resource.schema.node)
    allowed = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    if not resource.kind.custom:
        allowed.append(STRATEGIC_PATCH)
    raise unsupported_media_type(change.media_type, allowed)


def _apply(
    objects: Objects, resource: Resource, key: Key, body: Any, options: WriteOptions
) -> Outcome:
    if not isinstance(body, dict) or not body.get("apiVersion"):
        raise bad_request("an apply needs an object with apiVersion and kind")
    config = require_object(body, resource)
    settle_place(config, *key)
    if config["metadata"].get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    _restrict_to_subresource(config, resource, options)
    unknown = resource.schema.prune(copy.deepcopy(config))
    if unknown and options.validation == "Strict":
        fields = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise bad_request(f"strict decoding error: {fields}")
    resource.schema.prune(config)
    before = objects.find(resource, key)
    version = config["metadata"].pop("resourceVersion", None)
    manager = Manager(
        options.manager, "Apply", resource.kind.api_version, options.subresource
    )
    node = resource.schema.node
    last = _last_applied(before) if options.manager == _KUBECTL else None
    forgiven = frozenset() if last is None else frozenset(leaves(last, node))
    wanted = Application(config, manager, options.force, objects.now(), forgiven)
    after = apply(before, wanted, node)
    if last is not None:
        text = encode_json(config).decode() + "\n"
        after["metadata"]["annotations"][_LAST_APPLIED] = text
    warnings = tuple(f'unknown field "{path}"' for path in unknown)
    if before is None:
        if options.subresource:
            raise not_found(resource.kind.resource, key[1])
        after = require_object(after, resource)
        made = _insert(objects, resource, after, options, is_apply=True)
        return Outcome(made.obj, created=True, warnings=warnings + made.warnings)
    if version:
        after["metadata"]["resourceVersion"] = version
    done = _update(objects, resource, before, after, options, is_apply=True)
    return Outcome(done.obj, warnings=warnings + done.warnings)


def _last_applied(obj: JsonObject | None) -> JsonObject | None:
    """
    What kubectl's client-side apply wrote last, if it did.

    Server-side apply by kubectl may take these fields over without a conflict, and
    keeps the annotation true for older clients.
    """
    annotations = ((obj or {}).get("metadata") or {}).get("annotations") or {}
    try:
        last = decode_json(annotations.get(_LAST_APPLIED, "").encode())
    except ValueError:
        return None
    return last if isinstance(last, dict) else None


def _restrict_to_subresource(
    config: JsonObject, resource: Resource, options: WriteOptions
) -> None:
    if options.subresource == "status":
        for name in config.keys() - {"apiVersion", "kind", "metadata", "status"}:
            del config[name]
    elif "status" in resource.kind.subresources:
        config.pop("status", None)


def _update(
    objects: Objects,
    resource: Resource,
    before: JsonObject,
    after: JsonObject,
    options: WriteOptions,
    *,
    is_apply: bool = False,
) -> Outcome:
    kind = resource.kind
    given = after["metadata"]
    check_preconditions(
        resource, before, given.get("uid"), given.get("resourceVersion")
    )
    after = _combine(before, after, resource, options)
    warnings = admit(after, resource, options)
    if not options.subresource and not kind.custom and kind.kind in CHECK_CHANGE:
        faults = CHECK_CHANGE[kind.kind](before, after)
        if faults:
            raise invalid(kind.group_kind, before["metadata"]["name"], faults)
    if kind.kind == CRD_KIND:
        accept_crd(after, objects.now())
    if kind.has_generation and _desired(before) != _desired(after):
        after["metadata"]["generation"] = before["metadata"].get("generation", 0) + 1
    if not is_apply:
        manager = Manager(
            options.manager, "Update", kind.api_version, options.subresource
        )
        own_update(before, after, manager, resource.schema.node, objects.now())
    if _comparable(before) == _comparable(after):
        return Outcome(before, warnings=tuple(warnings))
    if not options.dry_run:
        if is_finished(after):
            objects.remove(resource, after)
        else:
            objects.put(resource, after)
    return Outcome(after, warnings=tuple(warnings))


def _combine(
    before: JsonObject, after: JsonObject, resource: Resource, options: WriteOptions
) -> JsonObject:
    """Take from *after* what this request may change, the rest from *before*."""
    meta = after["metadata"]
    if options.subresource == "status":
        combined = copy.deepcopy(before)
        combined.pop("status", None)
        if "status" in after:
            combined["status"] = after["status"]
        if "managedFields" in meta:
            combined["metadata"]["managedFields"] = meta["managedFields"]
        return combined
    if "status" in resource.kind.subresources:
        after.pop("status", None)
        if "status" in before:
            after["status"] = copy.deepcopy(before["status"])
    for name in (*_SERVER_OWNED, "resourceVersion"):
        meta.pop(name, None)
        if name in before["metadata"]:
            meta[name] = before["metadata"][name]
    if "managedFields" not in meta and "managedFields" in before["metadata"]:
        meta["managedFields"] = copy.deepcopy(before["metadata"]["managedFields"])
    return after


def _desired(obj: JsonObject) -> JsonObject:
    return {key: obj[key] for key in obj if key not in ("metadata", "status")}


def _comparable(obj: JsonObject) -> JsonObject:
    """The object without what every write renews."""
    meta = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    meta["managedFields"] = [
        {k: v for k, v in entry.items() if k != "time"}
        for entry in meta.get("managedFields") or ()
    ]
    return obj | {"metadata": meta}
