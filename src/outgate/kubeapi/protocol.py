"""
From a URL, a query and headers to what is being asked for.

What it is: pure reading of requests: which resource, which options, which shape of
answer. Everything a client can get wrong here becomes a Status.
What it is not: the answer; see ``listing``, ``watch``, ``operations``, ``deletion``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.catalogue import Catalogue
from outgate.kubeapi.crds import Resource
from outgate.kubeapi.deletion import DeleteOptions
from outgate.kubeapi.protobuf import decode_envelope
from outgate.kubeapi.schema import Schema
from outgate.kubeapi.selectors import EVERYTHING, Selector, parse_fields, parse_labels
from outgate.kubeapi.status import (
    Cause,
    bad_request,
    invalid,
    not_implemented,
    unsupported_media_type,
)
from outgate.kubeapi.wire import decode_json, decode_yaml

Query = Mapping[str, str]
_BODY_TYPES = (
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
)
NOT_OLDER = "NotOlderThan"
_POD_ONLY_ELSEWHERE = (
    "attach",
    "ephemeralcontainers",
    "eviction",
    "portforward",
    "proxy",
    "resize",
)
"""Subresources of pods in the real API that this one refuses by name."""
_DELETE_OPTIONS = Schema(
    {
        "properties": {
            "gracePeriodSeconds": {"type": "integer", "nullable": True},
            "preconditions": {
                "type": "object",
                "nullable": True,
                "properties": {
                    "uid": {"type": "string", "nullable": True},
                    "resourceVersion": {"type": "string", "nullable": True},
                },
            },
        }
    },
    {"type": "object"},
)
_ALWAYS_SELECTABLE = ("metadata.name", "metadata.namespace")


class Shape(Enum):
    """How an answer is packed."""

    OBJECT = "Object"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class Location:
    """What a URL points at; empty parts are not in the URL."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)


def locate(path: str, catalogue: Catalogue) -> Location | None:
    """
    Find the resource of *path*; ``None`` when nothing is served there.

    Errors: 501 for what the real API does with pods and this one does not.
    """
    match path.strip("/").split("/"):
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        inner = catalogue.find(group, version, rest[2])
        if inner is not None and inner.kind.namespaced:
            namespace, rest = rest[1], rest[2:]
    resource = catalogue.find(group, version, rest[0])
    if resource is None or len(rest) > 3:
        return None
    name, subresource = [*rest[1:], "", ""][:2]
    if name and resource.kind.namespaced and not namespace:
        return None
    if subresource and subresource not in resource.kind.subresources:
        if resource.kind.plural == "pods" and subresource in _POD_ONLY_ELSEWHERE:
            raise not_implemented(f"pods/{subresource} is not served by this API")
        return None
    return Location(resource, namespace, name, subresource)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What a list or watch is limited to, and from when it starts."""

    selector: Selector = EVERYTHING
    limit: int = 0
    continue_token: str = ""
    version: str = ""
    version_match: str = ""
    watch: bool = False
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout_seconds: int | None = None


def parse_list_options(query: Query, resource: Resource) -> ListOptions:
    supported = (*_ALWAYS_SELECTABLE, *resource.kind.fields)
    initial = query.get("sendInitialEvents")
    timeout = query.get("timeoutSeconds")
    version = query.get("resourceVersion", "")
    if version and not version.isdecimal():
        raise bad_request(f'resourceVersion: Invalid value: "{version}"')
    options = ListOptions(
        selector=Selector(
            parse_labels(query.get("labelSelector", "")),
            parse_fields(query.get("fieldSelector", ""), supported),
        ),
        limit=_integer(query, "limit", 0),
        continue_token=query.get("continue", ""),
        version=version,
        version_match=query.get("resourceVersionMatch", ""),
        watch=is_true(query, "watch"),
        bookmarks=is_true(query, "allowWatchBookmarks"),
        initial_events=None if initial is None else is_true(query, "sendInitialEvents"),
        timeout_seconds=None
        if timeout is None
        else _integer(query, "timeoutSeconds", 0),
    )
    _check_beginning(options)
    return options


def _check_beginning(options: ListOptions) -> None:
    """
    Refuse what the real API refuses about where a list or a watch begins.

    Errors: 422, as for a bad object: the options are one, of kind ListOptions.
    """
    match, faults = options.version_match, []

    def forbid(field: str, text: str) -> None:
        faults.append(Cause("FieldValueForbidden", f"Forbidden: {text}", field))

    if options.watch and options.initial_events is not None:
        if match != NOT_OLDER:
            text = "sendInitialEvents requires setting resourceVersionMatch to"
            forbid("resourceVersionMatch", f"{text} {NOT_OLDER}")
    elif options.initial_events is not None:
        forbid("sendInitialEvents", "sendInitialEvents is forbidden for list")
    elif match and options.watch:
        text = "is forbidden for watch unless sendInitialEvents is provided"
        forbid("resourceVersionMatch", f"resourceVersionMatch {text}")
    elif match and not options.version:
        text = "is forbidden unless resourceVersion is provided"
        forbid("resourceVersionMatch", f"resourceVersionMatch {text}")
    if match and options.continue_token:
        text = "is forbidden when continue is provided"
        forbid("resourceVersionMatch", f"resourceVersionMatch {text}")
    if match not in ("", "Exact", NOT_OLDER):
        text = f'Unsupported value: "{match}": supported values: "Exact", "{NOT_OLDER}"'
        faults.append(Cause("FieldValueNotSupported", text, "resourceVersionMatch"))
    if faults:
        raise invalid("ListOptions.meta.k8s.io", "", faults)


def is_true(query: Query, name: str) -> bool:
    """A flag as Kubernetes reads it: present and neither ``0`` nor ``false``."""
    return query.get(name, "false").lower() not in ("0", "false", "f")


def _integer(query: Query, name: str, default: int) -> int:
    text = query.get(name)
    if text is None or text == "":
        return default
    try:
        return int(text)
    except ValueError as error:
        raise bad_request(f'{name}: Invalid value: "{text}": not a number') from error


def optional_integer(query: Query, name: str) -> int | None:
    return _integer(query, name, 0) if query.get(name) else None


def parse_write_options(
    query: Query, user_agent: str, subresource: str = ""
) -> WriteOptions:
    """Without ``fieldManager`` the first word of the user agent is the manager."""
    manager = query.get("fieldManager") or user_agent.partition("/")[0] or "unknown"
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise bad_request(f'fieldValidation: Unsupported value: "{validation}"')
    return WriteOptions(
        manager=manager,
        dry_run=_is_dry_run(query.get("dryRun")),
        validation=validation,
        force=is_true(query, "force"),
        subresource=subresource,
    )


def _is_dry_run(value: object) -> bool:
    if value in (None, "", []):
        return False
    if value in ("All", ["All"]):
        return True
    raise bad_request(f'dryRun: Unsupported value: "{value}": supported values: "All"')


def parse_delete_options(query: Query, body: Any) -> DeleteOptions:
    """The body wins over the query, as in the real API."""
    options = body if isinstance(body, dict) else {}
    faults = _DELETE_OPTIONS.faults(options)
    if faults:
        raise bad_request(f"{faults[0].field}: {faults[0].message}")
    conditions = options.get("preconditions") or {}
    grace = options.get("gracePeriodSeconds")
    if grace is None:
        grace = optional_integer(query, "gracePeriodSeconds")
    return DeleteOptions(
        grace_seconds=grace,
        uid=conditions.get("uid"),
        version=conditions.get("resourceVersion"),
        dry_run=_is_dry_run(options.get("dryRun") or query.get("dryRun")),
    )


def parse_shape(accept: str) -> tuple[Shape, Mapping[str, str]]:
    """
    The first shape that the client accepts and that is served, with parameters.

    >>> parse_shape("application/json;as=Table;v=v1;g=meta.k8s.io,*/*")[0]
    <Shape.TABLE: 'Table'>
    """
    for entry in accept.split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        if media_type not in ("application/json", "application/*", "*/*", ""):
            continue
        values = dict(part.partition("=")[::2] for part in parameters)
        match values.get("as", ""):
            case "Table" if values.get("v", "v1") == "v1":
                return Shape.TABLE, values
            case "PartialObjectMetadata" | "PartialObjectMetadataList":
                return Shape.METADATA, values
            case "APIGroupDiscoveryList" | "":
                return Shape.OBJECT, values
    return Shape.OBJECT, {}


def decode_body(raw: bytes, content_type: str) -> Any:
    """Decode a body by its media type; a body that is not what it says is a 400."""
    media_type = content_type.partition(";")[0].strip() or "application/json"
    try:
        if media_type.endswith("json"):
            return decode_json(raw)
        if media_type.endswith("yaml"):
            return decode_yaml(raw)
        if media_type == "application/vnd.kubernetes.protobuf":
            return decode_envelope(raw)
    except ValueError as error:
        raise bad_request(f"the body could not be read: {error}") from error
    raise unsupported_media_type(media_type, _BODY_TYPES)
