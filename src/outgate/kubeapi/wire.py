"""
JSON, YAML and time as they stand on the wire.

What it is: the one place that turns bytes into Python values and back, so that
number and time formats are the same in every answer.
What it is not: validation; a decoded body may still be nonsense.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec
import yaml

JsonObject: TypeAlias = dict[str, Any]

_TIME_TAG = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a timestamp stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIME_TAG]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def encode_json(value: object) -> bytes:
    """Encode *value* without spaces; the order of keys is kept."""
    return msgspec.json.encode(value)


def decode_json(raw: bytes) -> Any:
    """
    Decode one JSON value.

    Errors: ``ValueError`` that says where the text stops being JSON.
    """
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def decode_yaml(raw: bytes) -> Any:
    """
    Decode one YAML document; JSON is YAML, and is tried first for speed.

    Errors: ``ValueError`` with the parser's own position.
    """
    if raw.lstrip()[:1] in (b"{", b"["):
        return decode_json(raw)
    try:
        # The loader is SafeLoader with one resolver less.
        return yaml.load(raw, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def format_time(moment: datetime) -> str:
    """
    Write *moment* as the API does: UTC, whole seconds.

    >>> format_time(datetime(2024, 5, 1, 12, 0, 7, 900, tzinfo=UTC))
    '2024-05-01T12:00:07Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object) -> datetime | None:
    """Read an API time (with or without fractions); ``None`` when it is not one."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
