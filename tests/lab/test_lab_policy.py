"""The first policy, in the lab: who does the server outside see?"""

from collections.abc import Iterator

import pytest

from lab.harness import POD_ADDRESSES, PROJECT, Lab, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab")]

POLICY = str(PROJECT / "deploy/lab/egress-all.yaml")
EGRESS_IP = "172.18.0.5"


def all_seen(lab: Lab) -> list[str]:
    return [lab.seen_by_echo(name) for name in POD_ADDRESSES]


@pytest.fixture
def policy(lab: Lab) -> Iterator[None]:
    lab.kubectl("apply", "-f", POLICY)
    try:
        wait_until(lambda: all_seen(lab) == [EGRESS_IP] * 3)
        yield
    finally:
        lab.kubectl("delete", "-f", POLICY, "--ignore-not-found")
        own = [node for _, node in POD_ADDRESSES.values()]
        wait_until(lambda: all_seen(lab) == own)


@pytest.mark.usefixtures("policy")
def test_policy_file_makes_every_pod_leave_as_the_egress_ip(lab: Lab) -> None:
    """The fixture adds: after the deletion each pod leaves under its node again."""
    assert all_seen(lab) == [EGRESS_IP] * 3


@pytest.mark.usefixtures("policy")
def test_policy_rows_are_in_the_gateways_kernel(lab: Lab) -> None:
    agent = lab.agent_on("k8s-guide-worker2")
    dump = lab.kubectl(
        f"-n cilium exec {agent} -- bpftool map dump pinned",
        "/sys/fs/bpf/tc/globals/cilium_egress_v4",
    )

    keys = [line for line in dump.splitlines() if line.startswith("key:")]
    assert sorted(keys) == [
        "key: 30 00 00 00 0a 00 00 ae  ac 12 00 00",
        "key: 30 00 00 00 0a 00 01 2a  ac 12 00 00",
        "key: 30 00 00 00 0a 00 02 56  ac 12 00 00",
    ]
