"""The page about settings says what the tables of settings say."""

import re
from pathlib import Path

from outgate.agent.config import SETTINGS as OF_AGENT
from outgate.controller.config import SETTINGS as OF_CONTROLLER

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/settings.md"


def test_every_setting_is_documented_with_its_default() -> None:
    expected = [
        (setting.name, setting.default or "", setting.meaning)
        for setting in (*OF_AGENT, *OF_CONTROLLER)
    ]
    row = re.compile(r"^\| `([-a-z]+)` \| (?:`(.*?)` )?\| (.*) \|$", re.MULTILINE)

    assert expected == row.findall(PAGE.read_text())
