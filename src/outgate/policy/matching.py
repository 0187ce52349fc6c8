"""
Which labelled things each selector matches, kept current both ways.

What it is: an index.  A thing that changes is compared only with selectors that could
match it, a new selector only with things that could match: five thousand nodes and a
thousand selectors are never five million comparisons.  Pods come here as identities
(``selection``), nodes as themselves (``nodes``).

What it is not: the meaning of selectors (``selectors``).
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from outgate.policy.model import Labels
from outgate.policy.selectors import (
    NAMESPACE_LABEL,
    NAMESPACE_LABELS_PREFIX,
    Operator,
    Requirement,
    Selector,
)

S = TypeVar("S", bound=Hashable)

_FEW = 16
"""So many keys are looked up in a thing's labels; more are looked up the other way."""


class Watched(Generic[S]):
    """
    A selector that somebody asks about, and the *subjects* that it matches.

    Compared by identity: there is one for each selector of an index.
    """

    __slots__ = ("anchor", "selector", "subjects", "uses")

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self.subjects: set[S] = set()
        self.anchor = _anchor(selector)
        self.uses = 0


class Matches(Generic[S]):
    """
    Things with labels, and the selectors that are watched.

    A selector with a requirement ``key In values`` is found by these labels (its
    *anchor*); the others are compared with everything.
    """

    def __init__(self) -> None:
        self._labels: dict[S, Labels] = {}
        self._found: dict[S, tuple[Watched[S], ...]] = {}
        self._watched: dict[Selector, Watched[S]] = {}
        self._unanchored: dict[Watched[S], None] = {}
        self._anchored: dict[str, dict[str, dict[Watched[S], None]]] = {}
        self._with_label: dict[str, dict[str, set[S]]] = {}

    def put(self, subject: S, labels: Labels) -> frozenset[Watched[S]]:
        """Take *subject*, or its new labels; return the selectors that now differ."""
        if (old := self._labels.get(subject)) is not None:
            self._index(subject, old, is_there=False)
        self._labels[subject] = labels
        self._index(subject, labels, is_there=True)
        now = tuple(w for w in self._candidates(labels) if w.selector.matches(labels))
        return self._note(subject, now)

    def remove(self, subject: S) -> frozenset[Watched[S]]:
        """Forget *subject*; return the selectors that matched it."""
        if (old := self._labels.pop(subject, None)) is not None:
            self._index(subject, old, is_there=False)
        return self._note(subject, ())

    def watch(self, selector: Selector) -> Watched[S]:
        """Return what *selector* matches, from now on; end it with ``unwatch``."""
        watched = self._watched.get(selector)
        if watched is None:
            watched = self._watched[selector] = Watched(selector)
            self._find_subjects(watched)
        watched.uses += 1
        return watched

    def unwatch(self, watched: Watched[S]) -> None:
        """End one ``watch``; the last one forgets the selector."""
        watched.uses -= 1
        if watched.uses:
            return
        del self._watched[watched.selector]
        for subject in watched.subjects:
            self._found[subject] = tuple(
                w for w in self._found[subject] if w is not watched
            )
        if watched.anchor is None:
            del self._unanchored[watched]
            return
        by_value = self._anchored[watched.anchor.key]
        for value in watched.anchor.values:
            del by_value[value][watched]
            if not by_value[value]:
                del by_value[value]
        if not by_value:
            del self._anchored[watched.anchor.key]
            del self._with_label[watched.anchor.key]

    def watching(self, selector: Selector) -> Watched[S] | None:
        """Return what is known of *selector*, if it is watched."""
        return self._watched.get(selector)

    def selectors_of(self, subject: S) -> tuple[Watched[S], ...]:
        """Return the watched selectors that match *subject*."""
        return self._found.get(subject, ())

    def _note(self, subject: S, now: tuple[Watched[S], ...]) -> frozenset[Watched[S]]:
        was = self._found.get(subject, ())
        if now:
            self._found[subject] = now
        else:
            self._found.pop(subject, None)
        changed = frozenset(was) ^ frozenset(now)
        for watched in changed:
            if subject in watched.subjects:
                watched.subjects.discard(subject)
            else:
                watched.subjects.add(subject)
        return changed

    def _find_subjects(self, watched: Watched[S]) -> None:
        subjects: Iterable[S] = self._labels
        if watched.anchor is None:
            self._unanchored[watched] = None
        else:
            key = watched.anchor.key
            if key not in self._anchored:
                self._with_label[key] = self._subjects_by_value(key)
            by_value = self._anchored.setdefault(key, {})
            for value in watched.anchor.values:
                by_value.setdefault(value, {})[watched] = None
            holders = self._with_label[key]
            subjects = [
                s for value in watched.anchor.values for s in holders.get(value, ())
            ]
        for subject in subjects:
            if watched.selector.matches(self._labels[subject]):
                watched.subjects.add(subject)
                self._found[subject] = (*self._found.get(subject, ()), watched)

    def _subjects_by_value(self, key: str) -> dict[str, set[S]]:
        found: dict[str, set[S]] = {}
        for subject, labels in self._labels.items():
            if (value := labels.get(key)) is not None:
                found.setdefault(value, set()).add(subject)
        return found

    def _index(self, subject: S, labels: Labels, *, is_there: bool) -> None:
        for key in _common(self._anchored, labels):
            subjects = self._with_label[key].setdefault(labels[key], set())
            if is_there:
                subjects.add(subject)
            else:
                subjects.discard(subject)
                if not subjects:
                    del self._with_label[key][labels[key]]

    def _candidates(self, labels: Labels) -> Iterable[Watched[S]]:
        yield from self._unanchored
        for key in _common(self._anchored, labels):
            yield from self._anchored[key].get(labels[key], ())


def _common(anchored: Mapping[str, object], labels: Labels) -> list[str]:
    """Return the keys that both have."""
    if len(anchored) <= _FEW:
        return [key for key in anchored if key in labels]
    return [key for key in labels if key in anchored]


def _anchor(selector: Selector) -> Requirement | None:
    """Return the requirement that finds things best: of few values."""
    found = [r for r in selector.requirements if r.operator is Operator.IN]
    return min(found, key=_breadth, default=None)


def _breadth(requirement: Requirement) -> tuple[bool, bool, int, str]:
    return (
        requirement.key == NAMESPACE_LABEL,
        requirement.key.startswith(NAMESPACE_LABELS_PREFIX),
        len(requirement.values),
        requirement.key,
    )
