"""The page about metrics knows every metric and label that there is."""

import re
from pathlib import Path

from outgate.controller import server as controller
from outgate.telemetry import metrics as agent

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"

STATISTICS = agent.Statistics(
    source_objects={"pods": 1},
    entries={("node", "ipv4", "done"): 1},
    packets=(agent.PacketCount("forwarded", "to_world", "P a", 1, 1),),
    collected={"ipv4": 1},
    hooks={"eth0": "tc"},
)
NUMBERS = controller.Numbers(
    is_leader=True,
    written=1,
    conflicts=1,
    failed=1,
    events=1,
    refused_events=1,
    failing=1,
    policies={"True": 1},
)


def test_every_metric_is_documented_with_its_labels() -> None:
    exposed = agent.exposition(STATISTICS) + controller.exposition(NUMBERS)
    samples = re.findall(r"^(outgate\w+)(?:\{(.*)\})? ", exposed.decode(), re.MULTILINE)
    expected = {
        (name, label)
        for name, labels in samples
        for label in re.findall(r"(\w+)=", labels) or [""]
    }
    table = re.findall(r"^\| `(\w+)` \| (.*?)\| ", PAGE.read_text(), re.MULTILINE)
    documented = {
        (name, label)
        for name, labels in table
        for label in re.findall(r"`(\w+)`", labels) or [""]
    }

    assert expected == documented
