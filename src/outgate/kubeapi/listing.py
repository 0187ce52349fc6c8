"""
Lists: whole or in pages, as objects, as metadata or as a table.

What it is: the bytes of a list answer. Stored bytes are joined, not decoded, unless
a table is wanted, so that a list of thousands is quick.
What it is not: the watch that follows it (``watch``).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from outgate.kubeapi.objects import as_version, raw_as_version
from outgate.kubeapi.protocol import ListOptions, Location, Shape
from outgate.kubeapi.status import ApiError, bad_request, expired
from outgate.kubeapi.storage import Storage, Stored
from outgate.kubeapi.table import make_table
from outgate.kubeapi.wire import JsonObject, decode_json, encode_json


@dataclass(frozen=True, slots=True)
class View:
    """How a client wants to see objects, and the time that ages count to."""

    shape: Shape
    now: datetime
    include: str = "Metadata"


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a list; *token* is empty on the last page."""

    items: tuple[Stored, ...]
    version: int
    token: str = ""
    remaining: int | None = None


def is_selected(location: Location, options: ListOptions, stored: Stored) -> bool:
    if location.namespace and stored.namespace != location.namespace:
        return False
    if location.name and stored.name != location.name:
        return False
    return options.selector.matches(stored.labels, stored.field)


def read_page(storage: Storage, location: Location, options: ListOptions) -> Page:
    """
    Select one page.

    Errors: 410 for a continue token whose list is forgotten, or for an exact
    version that is not the present one; 504 for a version of the future.
    """
    name = location.resource.kind.resource
    if options.continue_token:
        version, start = _decode_token(options.continue_token)
        everything = storage.frozen(name, version)
    else:
        _check_version(storage, options)
        version, start = storage.version, 0
        everything = storage.objects(name)
    items: list[Stored] = []
    for position in range(start, len(everything)):
        if not is_selected(location, options, everything[position]):
            continue
        if options.limit and len(items) == options.limit:
            if not options.continue_token:
                storage.freeze(name)
            remaining = _remaining(location, options, everything[position:])
            return Page(tuple(items), version, _token(version, position), remaining)
        items.append(everything[position])
    return Page(tuple(items), version)


def _check_version(storage: Storage, options: ListOptions) -> None:
    wanted = int(options.version or 0)
    if wanted > storage.version:
        details: JsonObject = {
            "causes": [
                {
                    "reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version",
                }
            ],
            "retryAfterSeconds": 1,
        }
        message = (
            f"Timeout: Too large resource version: {wanted}, current: {storage.version}"
        )
        raise ApiError(504, "Timeout", message, details)
    if options.version_match == "Exact" and wanted != storage.version:
        raise expired(f"too old resource version: {wanted} ({storage.version})")


def _remaining(
    location: Location, options: ListOptions, rest: tuple[Stored, ...]
) -> int | None:
    """How many follow; not counted under a selector, as in the real API."""
    if options.selector.labels or options.selector.fields:
        return None
    return sum(is_selected(location, options, stored) for stored in rest)


def _token(version: int, position: int) -> str:
    return base64.urlsafe_b64encode(encode_json([version, position])).decode()


def _decode_token(token: str) -> tuple[int, int]:
    try:
        version, position = decode_json(base64.urlsafe_b64decode(token))
        return int(version), int(position)
    except (ValueError, TypeError) as error:
        raise bad_request("continue key is not valid") from error


def encode_page(location: Location, page: Page, view: View) -> bytes:
    """The body of a list answer."""
    kind = location.resource.kind
    metadata: JsonObject = {"resourceVersion": str(page.version)}
    if page.token:
        metadata["continue"] = page.token
    if page.remaining is not None:
        metadata["remainingItemCount"] = page.remaining
    if view.shape is Shape.TABLE:
        objects = (as_version(location.resource, stored) for stored in page.items)
        table = make_table(location.resource, objects, view.now, include=view.include)
        return encode_json(table | {"metadata": metadata})
    if view.shape is Shape.METADATA:
        head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
    else:
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version}
    items = (_encode_listed(location, stored, view) for stored in page.items)
    return _encode_list(head | {"metadata": metadata}, items)


def _encode_list(head: JsonObject, items: Iterable[bytes]) -> bytes:
    return encode_json(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def _encode_listed(location: Location, stored: Stored, view: View) -> bytes:
    """One object of a list; those of built-in kinds do not say again what they are."""
    body = encode_item(location, stored, view)
    kind = location.resource.kind
    if kind.custom or view.shape is Shape.METADATA:
        return body
    head = f'{{"apiVersion":"{kind.api_version}","kind":"{kind.kind}",'.encode()
    if body.startswith(head):
        return b"{" + body[len(head) :]
    obj = decode_json(body)
    return encode_json(
        {k: v for k, v in obj.items() if k not in ("apiVersion", "kind")}
    )


def encode_item(location: Location, stored: Stored, view: View) -> bytes:
    """One object in the shape that the client wants, tables aside."""
    if view.shape is Shape.METADATA:
        metadata = as_version(location.resource, stored)["metadata"]
        return encode_json(partial_metadata(metadata))
    return raw_as_version(location.resource, stored)


def partial_metadata(metadata: JsonObject) -> JsonObject:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
    }


def encode_one(location: Location, obj: JsonObject, view: View) -> bytes:
    """The answer to a get or a write, in the shape that the client wants."""
    if obj.get("kind") == "Status" or view.shape is Shape.OBJECT:
        return encode_json(obj)
    if view.shape is Shape.METADATA:
        return encode_json(partial_metadata(obj["metadata"]))
    table = make_table(location.resource, [obj], view.now, include=view.include)
    version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
    return encode_json(table | {"metadata": version})
