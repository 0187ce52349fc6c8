"""
Typed access to the store: objects in and out, kinds kept in step.

What it is: the few primitives that every write is made of. A stored CRD is served
at once, a removed one is withdrawn at once; a namespace or CRD that waits to be
empty goes with the last thing in it.
What it is not: rules about who may write what (``operations``, ``deletion``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network

from outgate.kubeapi.catalogue import Catalogue
from outgate.kubeapi.crds import Resource
from outgate.kubeapi.status import conflict, not_found
from outgate.kubeapi.storage import Key, Storage, Stored
from outgate.kubeapi.wire import JsonObject, decode_json, encode_json, format_time

Clock = Callable[[], datetime]
NewUid = Callable[[], str]
CRD_KIND = "CustomResourceDefinition"
ServiceNetwork = IPv4Network | IPv6Network
SERVICE_NETWORK = IPv4Network("10.96.0.0/16")


@dataclass(frozen=True, slots=True)
class Objects:
    """
    The store with its kinds, its clock and its source of uids.

    Services get their addresses from *service_network*.
    """

    storage: Storage
    catalogue: Catalogue
    clock: Clock
    new_uid: NewUid
    service_network: ServiceNetwork = SERVICE_NETWORK

    def now(self) -> str:
        return format_time(self.clock())

    def find(self, resource: Resource, key: Key) -> JsonObject | None:
        """A fresh copy in the version that *resource* names."""
        stored = self.storage.get(resource.kind.resource, key)
        return None if stored is None else as_version(resource, stored)

    def require(self, resource: Resource, key: Key) -> JsonObject:
        obj = self.find(resource, key)
        if obj is None:
            raise not_found(resource.kind.resource, key[1])
        return obj

    def put(self, resource: Resource, obj: JsonObject) -> None:
        """Store *obj*, which gets its new resourceVersion."""
        keeper = self._keeper(resource)
        obj["apiVersion"] = keeper.kind.api_version
        self.storage.put(keeper.kind, obj)
        obj["apiVersion"] = resource.kind.api_version
        if resource.kind.kind == CRD_KIND:
            self.catalogue.serve(obj)

    def remove(self, resource: Resource, obj: JsonObject) -> None:
        """Remove *obj*, and what waited for it to be gone."""
        keeper = self._keeper(resource)
        obj["apiVersion"] = keeper.kind.api_version
        self.storage.remove(keeper.kind, obj)
        obj["apiVersion"] = resource.kind.api_version
        if resource.kind.kind == CRD_KIND:
            self.catalogue.withdraw(obj["metadata"]["name"])
            return
        namespace = obj["metadata"].get("namespace")
        if namespace:
            self._remove_if_empty(self.catalogue.built_in("Namespace"), namespace)
        if resource.kind.custom:
            self._remove_if_empty(
                self.catalogue.built_in(CRD_KIND), resource.kind.resource
            )

    def _keeper(self, resource: Resource) -> Resource:
        if resource.is_storage:
            return resource
        return next(
            other
            for other in self.catalogue.stored()
            if other.kind.resource == resource.kind.resource
        )

    def _remove_if_empty(self, resource: Resource, name: str) -> None:
        holder = self.find(resource, ("", name))
        if holder is None or "deletionTimestamp" not in holder["metadata"]:
            return
        if not self.contents(resource, name):
            self.remove(resource, holder)

    def contents(self, resource: Resource, name: str) -> list[tuple[Resource, Key]]:
        """What is in a namespace, or the objects of a CRD's kind."""
        if resource.kind.kind == "Namespace":
            return [
                (other, stored.key)
                for other in self.catalogue.stored()
                if other.kind.namespaced
                for stored in self.storage.objects(other.kind.resource)
                if stored.namespace == name
            ]
        return [
            (other, stored.key)
            for other in self.catalogue.stored()
            if other.kind.custom and other.kind.resource == name
            for stored in self.storage.objects(name)
        ]


def as_version(resource: Resource, stored: Stored) -> JsonObject:
    """The object as *resource*'s version spells it."""
    obj: JsonObject = decode_json(stored.raw)
    obj["apiVersion"] = resource.kind.api_version
    return obj


def raw_as_version(resource: Resource, stored: Stored) -> bytes:
    """The same as bytes; the stored bytes themselves whenever they fit."""
    if not resource.kind.custom or resource.is_storage:
        return stored.raw
    return encode_json(as_version(resource, stored))


def check_preconditions(
    resource: Resource, obj: JsonObject, uid: str | None, version: str | None
) -> None:
    """Refuse with 409 unless *obj* is still the object that the client means."""
    meta = obj["metadata"]
    if (uid and uid != meta["uid"]) or (version and version != meta["resourceVersion"]):
        raise conflict(resource.kind.resource, meta["name"])
