"""
Answers of an API server, decoded: list pages and watch events, for ``watch``.

What it is: typed partial decoding with msgspec; one object that cannot be decoded
makes its whole answer a failure, because half an answer must not look like one.

What it is not: HTTP (``client``) or decisions (``watch``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from outgate.errors import SourceError
from outgate.source.objects import Metadata
from outgate.source.watch import Bookmark, Deleted, Event, Failure, Page, Stored

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class _Object(Protocol[T_co]):
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


class _Status(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""


class _Bare(msgspec.Struct, gc=False):
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """
    One kind of objects to watch: its name, its URL path, and how it is decoded.

    *may_be_missing* is for kinds that a CRD brings.
    """

    name: str
    path: str
    decode: Callable[[bytes], tuple[Metadata, T]]
    may_be_missing: bool = False

    def decode_page(self, raw: bytes) -> Page[T]:
        """Return one answer to a list; ``SourceError`` when it cannot be read."""
        try:
            page = _LIST.decode(raw)
            items = tuple(self._decode_item(bytes(item)) for item in page.items or ())
        except msgspec.DecodeError as e:
            raise SourceError(f"list of {self.name}: {e}") from e
        return Page(
            items, page.metadata.resource_version, page.metadata.continue_token or ""
        )

    def decode_event(self, line: bytes) -> Event[T] | Failure:
        """Return one line of a watch; ``SourceError`` when it cannot be read."""
        try:
            event = _EVENT.decode(line)
            return self._decode_event(event.type, bytes(event.object))
        except msgspec.DecodeError as e:
            raise SourceError(f"watch of {self.name}: {e}") from e

    def _decode_event(self, event_type: str, raw: bytes) -> Event[T] | Failure:
        match event_type:
            case "ADDED" | "MODIFIED":
                metadata, value = self.decode(raw)
                return Stored(metadata.key, value, metadata.resource_version or "")
            case "DELETED":
                metadata = _BARE.decode(raw).metadata
                return Deleted(metadata.key, metadata.resource_version or "")
            case "BOOKMARK":
                metadata = _BARE.decode(raw).metadata
                return Bookmark(metadata.resource_version or "")
            case "ERROR":
                status = _STATUS.decode(raw)
                return Failure(status.code, f"watch of {self.name}: {status.message}")
            case _:
                raise SourceError(f"watch of {self.name}: unknown event {event_type!r}")

    def _decode_item(self, raw: bytes) -> tuple[str, T]:
        metadata, value = self.decode(raw)
        return metadata.key, value


def decoder(struct: type[_Object[T]]) -> Callable[[bytes], tuple[Metadata, T]]:
    """Return a function from JSON of one object to its metadata and model value."""
    typed = msgspec.json.Decoder(struct)

    def decode(raw: bytes) -> tuple[Metadata, T]:
        found = typed.decode(raw)
        return found.metadata, found.to_model()

    return decode


_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)
_STATUS = msgspec.json.Decoder(_Status)
_BARE = msgspec.json.Decoder(_Bare)
