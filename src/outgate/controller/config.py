"""
The controller's settings: one frozen value; how it is read is in ``outgate.settings``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from outgate.settings import (
    HostPort,
    Setting,
    choice,
    host_port,
    read_settings,
)
from outgate.telemetry.logs import LogFormat


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """Every setting of one controller; ``SETTINGS`` says what each means."""

    kubeconfig: Path | None
    context: str | None
    lease_namespace: str
    metrics_address: HostPort | None
    log_format: LogFormat


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise ValueError("is no name of a namespace")
    return text


SETTINGS = (
    Setting("kubeconfig", None, Path, "Kubeconfig file; else as kubectl does."),
    Setting("context", None, str, "Context of it; else the current one."),
    Setting(
        "lease-namespace",
        "outgate-system",
        _namespace,
        "Where the Lease is by which one of several controllers writes.",
    ),
    Setting("metrics-address", None, host_port, "host:port for health and metrics."),
    Setting("log-format", "auto", choice(LogFormat), "auto, text or json."),
)
"""The one table of settings: flags, environment and file follow it."""


def load_config(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    file: Path | None = None,
) -> ControllerConfig:
    """
    Return the settings; *flags* are by setting name, None where not given.

    Errors: ConfigError that names the setting and where its value came from.
    """
    return ControllerConfig(**read_settings(SETTINGS, flags, environment, file))
