"""
A cursor over decoded JSON that remembers its path and collects what is wrong.

What it is: the way ``parse`` and ``selectors`` read objects of unknown shape, so
that *all* problems of an object are reported, each with its field's path.

What it is not: a schema.  The input is only read, never modified.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from outgate.errors import PolicyError


@dataclass(frozen=True, slots=True)
class Field:
    """
    *value* at *path*.

    What is found below goes to *problems* (the object is wrong) and *warnings* (it is
    right, and may not do what its author thinks), both shared by all fields.
    """

    value: object
    path: str
    problems: list[PolicyError] = field(default_factory=list)
    warnings: list[PolicyError] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """Record that this field is wrong."""
        self.problems.append(PolicyError(self.path, reason))

    def warn(self, reason: str) -> None:
        """Record that this field may not do what its author thinks."""
        self.warnings.append(PolicyError(self.path, reason))

    @property
    def is_absent(self) -> bool:
        """Return whether the field is missing or null, which mean the same."""
        return self.value is None

    def get(self, key: str) -> "Field":
        """Return the field *key* of this object, absent if it is not there."""
        path = f"{self.path}.{key}" if self.path else key
        value = self.value.get(key) if isinstance(self.value, Mapping) else None
        return self._below(value, path)

    def require_object(self, known: Collection[str]) -> bool:
        """Return whether this is an object; refuse fields that are not *known*."""
        if not isinstance(self.value, Mapping):
            self._refuse_type("an object")
            return False
        for key in self.value:
            if key not in known:
                fields = ", ".join(sorted(known))
                self.get(str(key)).refuse(f"unknown field; there are: {fields}")
        return True

    def items(self, at_most: int | None = None) -> Iterator["Field"]:
        """
        Yield the elements of this list, each with its index in its path.

        A list of more than *at_most* is refused, and nothing of it is read.
        """
        if not isinstance(self.value, list | tuple):
            self._refuse_type("a list")
            return
        if at_most is not None and len(self.value) > at_most:
            self.refuse(f"has {len(self.value)} items; at most {at_most} are allowed")
            return
        for index, value in enumerate(self.value):
            yield self._below(value, f"{self.path}[{index}]")

    def pairs(self) -> Iterator[tuple[str, "Field"]]:
        """Yield the members of this object by name, in the order of names."""
        if not isinstance(self.value, Mapping):
            self._refuse_type("an object")
            return
        for key in sorted(self.value, key=str):
            path = f"{self.path}[{str(key)!r}]"
            yield str(key), self._below(self.value[key], path)

    def text(self) -> str | None:
        """Return this string; refuse anything else and return None."""
        if isinstance(self.value, str):
            return self.value
        self._refuse_type("a string")
        return None

    def _refuse_type(self, wanted: str) -> None:
        if self.is_absent:
            self.refuse(f"is missing; write {wanted}")
            return
        is_bare = wanted == "a string" and isinstance(self.value, int | float)
        mend = " (quote it)" if is_bare else ""
        self.refuse(f"must be {wanted}, not {describe(self.value)}{mend}")

    def _below(self, value: object, path: str) -> "Field":
        return Field(value, path, self.problems, self.warnings)


def describe(value: object) -> str:
    """Return *value* for a message: as JSON would call it, with a short value."""
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {value!r}"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"
