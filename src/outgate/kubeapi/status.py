"""
Every refusal that a client can see, as an exception with a ``Status`` body.

What it is: one small constructor per reason, with the codes and the wording of
the real API, because ``kubectl`` prints them to people.
What it is not: control flow inside the package; pure functions raise these only
where the request itself is at fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outgate.kubeapi.wire import JsonObject


@dataclass(frozen=True, slots=True)
class Cause:
    """One fault inside a body: what kind, the words, and the field's path."""

    reason: str
    message: str
    field: str


class ApiError(Exception):
    """A refused request; ``status`` is the whole answer body."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: JsonObject | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    @property
    def status(self) -> JsonObject:
        body: JsonObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details is not None:
            body["details"] = self.details
        return body


def _about(resource: str, name: str) -> JsonObject:
    plural, _, group = resource.partition(".")
    details: JsonObject = {"name": name, "kind": plural}
    if group:
        details["group"] = group
    return details


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: str, name: str, why: str) -> ApiError:
    message = f'{resource} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, _about(resource, name))


def not_found(resource: str, name: str) -> ApiError:
    message = f'{resource} "{name}" not found'
    return ApiError(404, "NotFound", message, _about(resource, name))


def no_such_path() -> ApiError:
    message = "the server could not find the requested resource"
    return ApiError(404, "NotFound", message, {})


def method_not_allowed(what: str) -> ApiError:
    message = f"the server does not allow this method on the requested resource: {what}"
    return ApiError(405, "MethodNotAllowed", message, {})


def already_exists(resource: str, name: str) -> ApiError:
    message = f'{resource} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _about(resource, name))


def conflict(resource: str, name: str) -> ApiError:
    message = (
        f'Operation cannot be fulfilled on {resource} "{name}": the object has been '
        "modified; please apply your changes to the latest version and try again"
    )
    return ApiError(409, "Conflict", message, _about(resource, name))


def apply_conflict(causes: Sequence[Cause]) -> ApiError:
    """Fields of an apply that belong to somebody else; *causes* name each."""
    owners = ", ".join(sorted({cause.message for cause in causes}))
    fields = ", ".join(cause.field for cause in causes)
    plural = "s" if len(causes) > 1 else ""
    message = f"Apply failed with {len(causes)} conflict{plural}: {owners}: {fields}"
    return ApiError(409, "Conflict", message, {"causes": _causes(causes)})


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def unsupported_media_type(given: str, allowed: Sequence[str]) -> ApiError:
    message = (
        "the body of the request was in an unknown format - accepted media types "
        f"include: {', '.join(allowed)} (got {given!r})"
    )
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(group_kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """A body that breaks the kind's rules; every fault is named, not only one."""
    lines = [f"{cause.field}: {cause.message}" for cause in causes]
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    details = _about_kind(group_kind, name)
    details["causes"] = _causes(causes)
    message = f'{group_kind} "{name}" is invalid: {text}'
    return ApiError(422, "Invalid", message, details)


def not_implemented(message: str) -> ApiError:
    return ApiError(501, "NotImplemented", message)


def _about_kind(group_kind: str, name: str) -> JsonObject:
    kind, _, group = group_kind.partition(".")
    details: JsonObject = {"name": name, "kind": kind}
    if group:
        details["group"] = group
    return details


def _causes(causes: Sequence[Cause]) -> list[JsonObject]:
    return [
        {"reason": cause.reason, "message": cause.message, "field": cause.field}
        for cause in causes
    ]


def success(details: JsonObject) -> JsonObject:
    """The body that answers a delete which removed its object at once."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
