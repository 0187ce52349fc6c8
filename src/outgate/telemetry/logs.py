"""
Logs: for people on a terminal, JSON lines elsewhere; always on standard error.

Configured once, by agent and controller.  Pure code never logs; the CLI prints
instead.
"""

import sys
from enum import StrEnum
from typing import TextIO

import structlog


class LogFormat(StrEnum):
    """How a line looks; AUTO chooses by whether standard error is a terminal."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def configure_logs(format: LogFormat, stream: TextIO | None = None) -> None:
    """Send structlog's events to *stream*, standard error by default."""
    stream = stream or sys.stderr
    is_text = format is LogFormat.TEXT or (format is LogFormat.AUTO and stream.isatty())
    renderer = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if is_text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
