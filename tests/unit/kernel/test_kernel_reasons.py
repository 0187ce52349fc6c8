import re
from pathlib import Path

from outgate.kernel.reasons import Reason, reason_name

HEADER = Path(__file__).parents[3] / "bpf" / "include" / "verdict.h"


def test_reasons_are_those_of_verdict_h() -> None:
    lines = re.findall(r"^\s(\w+) = (\d+), /\* (.*) \*/$", HEADER.read_text(), re.M)

    assert [(name, int(number), meaning) for name, number, meaning in lines] == [
        (reason.name, reason.value, reason.meaning) for reason in Reason
    ]


def test_reason_of_a_newer_datapath_has_a_name_too() -> None:
    assert reason_name(Reason.DROP_SNAT_NO_PORT) == "drop_snat_no_port"
    assert reason_name(200) == "reason_200"
