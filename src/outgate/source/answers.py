"""
What an API server answers, and what can be asked next: the words of ``watch``.  Pure.

What it is: values.  ``wire`` makes the answers, ``informer`` carries out the steps.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """ADDED, MODIFIED or listed: the difference means nothing to us."""

    key: str
    value: T
    resource_version: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object is gone; *uid* empty: whichever it was."""

    key: str
    resource_version: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Nothing changed up to this version; *ends_list*: and the list is whole."""

    resource_version: str
    ends_list: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One answer to a list; *continue_token* is empty on the last page."""

    items: tuple[Stored[T], ...]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """
    A request failed, or a watch said ERROR; *status* 0 is "no answer".

    *retry_after* is for how many seconds the server wants to be left alone.
    """

    status: int
    message: str
    retry_after: float = 0.0


Event = Stored[T] | Deleted | Bookmark


@dataclass(frozen=True, slots=True)
class StreamList:
    """Ask for a list as a watch: all objects, a bookmark, then what happens."""


@dataclass(frozen=True, slots=True)
class FetchPage:
    """Ask for a list, or for its next page."""

    continue_token: str


@dataclass(frozen=True, slots=True)
class OpenWatch:
    """Watch what happens after this version."""

    resource_version: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for that long."""

    seconds: float


Step = StreamList | FetchPage | OpenWatch | Wait
