"""
Answers of an API server, decoded: list pages and watch events, for ``watch``.

What it is: typed partial decoding with msgspec; one object that cannot be decoded
makes its whole answer a failure, because half an answer must not look like one.

What it is not: HTTP (``client``) or decisions (``watch``).  Which fields of an object
are decoded is said in ``objects``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from outgate.errors import SourceError
from outgate.source.answers import Bookmark, Deleted, Event, Failure, Stored
from outgate.source.objects import Metadata

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

Raw = bytes | msgspec.Raw
"""JSON text; a ``msgspec.Raw`` is a view of a larger one, not a copy."""

UNREADABLE = (msgspec.DecodeError, RecursionError)
"""What decoding raises: of no JSON, of other types, of JSON nested without end."""

_ENDS_LIST = "k8s.io/initial-events-end"


class Readable(Protocol[T_co]):
    """What a Struct of ``objects`` offers."""

    metadata: Metadata

    def to_model(self) -> T_co: ...


class _ListMetadata(msgspec.Struct, rename="camel", gc=False):
    resource_version: str = ""
    continue_token: str | None = msgspec.field(default=None, name="continue")


class _List(msgspec.Struct, gc=False):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _Details(msgspec.Struct, rename="camel", gc=False):
    retry_after_seconds: float = 0.0


class _Status(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""
    details: _Details | None = None


class _Bare(msgspec.Struct, gc=False):
    metadata: Metadata


class _MarkMetadata(msgspec.Struct, rename="camel", gc=False):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Mark(msgspec.Struct, gc=False):
    metadata: _MarkMetadata


@dataclass(frozen=True, slots=True)
class RawPage:
    """One answer to a list whose items are not decoded yet."""

    items: Sequence[msgspec.Raw]
    resource_version: str
    continue_token: str


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """
    One kind of objects to watch: its name, its URL path, and how it is decoded.

    *may_be_missing* is for kinds that a CRD brings or that old servers lack;
    *former_path* is where such servers have it.
    """

    name: str
    path: str
    decode: Callable[[Raw], tuple[Metadata, T]]
    may_be_missing: bool = False
    former_path: str = ""

    def read_page(self, raw: bytes) -> RawPage:
        """Return one answer to a list; ``SourceError`` when it cannot be read."""
        try:
            page = _LIST.decode(raw)
        except UNREADABLE as e:
            raise SourceError(f"list of {self.name}: {e}") from e
        metadata = page.metadata
        return RawPage(
            page.items or (), metadata.resource_version, metadata.continue_token or ""
        )

    def decode_items(self, raws: Sequence[Raw]) -> list[Stored[T]]:
        """Return the objects of a list; ``SourceError`` when one cannot be read."""
        try:
            return [self._decode_stored(raw) for raw in raws]
        except UNREADABLE as e:
            raise SourceError(f"list of {self.name}: {e}") from e

    def decode_event(self, line: bytes) -> Event[T] | Failure:
        """Return one line of a watch; ``SourceError`` when it cannot be read."""
        try:
            event = _EVENT.decode(line)
            return self._decode_event(event.type, event.object)
        except UNREADABLE as e:
            raise SourceError(f"watch of {self.name}: {e}") from e

    def _decode_event(self, event_type: str, raw: Raw) -> Event[T] | Failure:
        match event_type:
            case "ADDED" | "MODIFIED":
                return self._decode_stored(raw)
            case "DELETED":
                metadata = _BARE.decode(raw).metadata
                version = metadata.resource_version or ""
                return Deleted(metadata.key, version, metadata.uid or "")
            case "BOOKMARK":
                mark = _MARK.decode(raw).metadata
                ends_list = (mark.annotations or {}).get(_ENDS_LIST) == "true"
                return Bookmark(mark.resource_version, ends_list)
            case "ERROR":
                status = _STATUS.decode(raw)
                wait = status.details.retry_after_seconds if status.details else 0.0
                message = f"watch of {self.name}: {status.message}"
                return Failure(status.code, message, wait)
            case _:
                raise SourceError(f"watch of {self.name}: unknown event {event_type!r}")

    def _decode_stored(self, raw: Raw) -> Stored[T]:
        metadata, value = self.decode(raw)
        if not metadata.name:
            raise SourceError(f"an object of {self.name} has no name")
        version = metadata.resource_version or ""
        return Stored(metadata.key, value, version, metadata.uid or "")


def decoder(struct: type[Readable[T]]) -> Callable[[Raw], tuple[Metadata, T]]:
    """Return a function from JSON of one object to its metadata and model value."""
    typed = msgspec.json.Decoder(struct)

    def decode(raw: Raw) -> tuple[Metadata, T]:
        found = typed.decode(raw)
        return found.metadata, found.to_model()

    return decode


_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)
_STATUS = msgspec.json.Decoder(_Status)
_BARE = msgspec.json.Decoder(_Bare)
_MARK = msgspec.json.Decoder(_Mark)
