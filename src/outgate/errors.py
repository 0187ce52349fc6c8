"""
The few exceptions that cross folders.

Who raises: the doors (``source``, ``kernel``) and the parser (``policy``).
Who catches: the reconciler and the agent turn them into state, the CLI into a
message and an exit code.  Anything else that is raised is a bug of ours and ends
the process; a supervisor restarts it.
"""

import os


class OutgateError(Exception):
    """The base of the errors a caller may expect; never raised itself."""


class PolicyError(OutgateError):
    """
    A field of a resource is wrong: the user's fault, never retried.

    Shape: *path* is a field path as users write it (``spec.destinationCIDRs[2]``),
    *reason* is lower case, holds the value, and says what would be right.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class KernelError(OutgateError):
    """
    The kernel refused an operation: retried, and shown until it succeeds.

    *rows* is how many rows of the entry it concerns.
    """

    def __init__(
        self, operation: str, errno: int, detail: str = "", rows: int = 1
    ) -> None:
        reason = os.strerror(errno) if errno else "failed"
        super().__init__(f"{operation}: {reason}" + (f" ({detail})" if detail else ""))
        self.operation = operation
        self.errno = errno
        self.detail = detail
        self.rows = rows


class SourceError(OutgateError):
    """
    The source of desired state failed: retried, and nothing is removed meanwhile.

    *status* is HTTP's, 0 for no answer; *retry_after* is for how many seconds the
    server wants to be left alone.
    """

    def __init__(self, message: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ConfigError(OutgateError):
    """A setting or an argument is wrong; the message names it and the mend."""
