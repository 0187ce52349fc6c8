"""The first policy, in the lab: who does the server outside see?"""

from collections.abc import Iterator

import pytest

from lab.egress import Scene, scenes_of
from lab.harness import Lab

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab")]


@pytest.fixture
def policy(lab: Lab) -> Iterator[Scene]:
    (scene,) = scenes_of(lab, "ipv4")
    try:
        scene.apply_policy()
        yield scene
    finally:
        scene.delete_policy()


def test_policy_file_makes_every_pod_leave_as_the_egress_ip(policy: Scene) -> None:
    """The fixture adds: after the deletion each pod leaves under its node again."""
    assert policy.all_seen() == ["172.18.0.5"] * 3


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
