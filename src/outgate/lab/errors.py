"""
The one exception of the lab.

Raised where a part of the lab cannot be made, found or removed; the CLI prints it.
A pod that fails is not an error of the lab: it becomes an event of that pod.
"""

from outgate.errors import OutgateError


class LabError(OutgateError):
    """The lab could not do what it was asked; the message says what and what to do."""
