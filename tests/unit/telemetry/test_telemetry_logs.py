import io
import json

import structlog

from outgate.telemetry.events import Event
from outgate.telemetry.logs import LogFormat, configure_logs


def test_logs_are_json_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    configure_logs(LogFormat.AUTO, stream)
    structlog.get_logger().info(Event.ROUND, added=3)
    line = json.loads(stream.getvalue())

    assert (line["event"], line["added"], line["level"]) == (
        "reconcile.round",
        3,
        "info",
    )


def test_logs_are_text_when_asked_for() -> None:
    stream = io.StringIO()
    configure_logs(LogFormat.TEXT, stream)
    structlog.get_logger().info(Event.ROUND, added=3)

    assert "reconcile.round" in stream.getvalue()
    assert "added=3" in stream.getvalue()
