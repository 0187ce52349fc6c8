"""
Label and field selectors: text in, a test of labels or fields out.

What it is: the whole grammar of label selectors (``=``, ``!=``, ``in``, ``notin``,
exists, not exists) and of field selectors (``=``, ``==``, ``!=``).
What it is not: the structured selectors inside objects; those belong to whoever
owns the objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from outgate.kubeapi.status import bad_request

_SET_TERM = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^()]*)\)$")
_PAIR_TERM = re.compile(r"^([^=!\s]+)\s*(==|=|!=)\s*([^=!\s]*)$")
_KEY = re.compile(r"^!?\s*[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")
_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term; an empty *values* asks only whether the key is there."""

    key: str
    wanted: bool
    values: frozenset[str]

    def is_met(self, labels: Mapping[str, str]) -> bool:
        if not self.values:
            return (self.key in labels) is self.wanted
        return (labels.get(self.key) in self.values) is self.wanted


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must be met; none selects everything."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str], field: Callable[[str], str]) -> bool:
        """*field* gives the value of a selectable field, empty when unset."""
        return all(term.is_met(labels) for term in self.labels) and all(
            term.is_met({term.key: field(term.key)}) for term in self.fields
        )


EVERYTHING = Selector()


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """
    Read a label selector.

    >>> [term.key for term in parse_labels("a=1,b in (x, y),!c")]
    ['a', 'b', 'c']
    """
    terms = (term.strip() for term in _OUTSIDE_PARENTHESES.split(text))
    return tuple(_parse_label_term(term) for term in terms if term)


def _parse_label_term(term: str) -> Requirement:
    if match := _SET_TERM.match(term):
        values = frozenset(value.strip() for value in match[3].split(","))
        return Requirement(match[1], match[2] == "in", values)
    if match := _PAIR_TERM.match(term):
        return Requirement(match[1], match[2] != "!=", frozenset({match[3]}))
    if _KEY.match(term):
        return Requirement(term.lstrip("! "), not term.startswith("!"), frozenset())
    raise bad_request(f"unable to parse requirement: {term!r} is no label selector")


def parse_fields(text: str, supported: Collection[str]) -> tuple[Requirement, ...]:
    """Read a field selector; a field outside *supported* is the client's fault."""
    terms = (term.strip() for term in text.split(","))
    return tuple(_parse_field_term(term, supported) for term in terms if term)


def _parse_field_term(term: str, supported: Collection[str]) -> Requirement:
    match = re.match(r"^([^=!]+)(==|=|!=)(.*)$", term)
    if match is None:
        raise bad_request(f"invalid field selector: {term!r}")
    if match[1] not in supported:
        raise bad_request(f"field label not supported: {match[1]}")
    return Requirement(match[1], match[2] != "!=", frozenset({match[3]}))
