"""The page about XDP knows every reason why an uplink has none."""

import re
from pathlib import Path

from outgate.policy.xdp import NO_GATEWAY, REFUSALS, GatewayHook

PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/xdp.md").read_text()


def test_every_reason_is_documented_with_its_settings() -> None:
    expected = {NO_GATEWAY: {"auto"}}
    for setting, reasons in REFUSALS.items():
        for _, reason in reasons:
            expected.setdefault(reason, set()).add(str(setting))
    table = re.findall(r"^\| `([^`|]{20,})` \| (.*?) \| ", PAGE, re.MULTILINE)

    assert expected == {
        reason: set(re.findall(r"`(\w+)`", settings)) for reason, settings in table
    }


def test_every_value_of_the_setting_is_documented() -> None:
    assert set(GatewayHook) <= set(re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE))
