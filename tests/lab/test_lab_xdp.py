"""Gateways that meet their packets in XDP: who is seen, what survives, how to leave."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lab.egress import (
    GATEWAY,
    PODS,
    Scene,
    agent_process,
    covered_scenes,
    digest_of_download,
    finish,
    start_in,
)
from lab.harness import wait_until
from lab.test_lab_datapath import asker

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab-xdp")]

MIB = 1 << 20
BYTES_PER_SECOND = 24 * MIB
POD = "net-tshoot-worker"
LEAST_PACKETS = 16 * MIB // 1448
"""A download of 16 MiB has so many packets, and nearly all go by XDP."""

BY_XDP = "eth0 by xdp"
BY_TC = "eth0 by tc: the agent's settings leave everything to tc"

Scenes = tuple[Scene, ...]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    config = tmp_path_factory.mktemp("xdp") / "kubeconfig"
    with covered_scenes(config, "dual", "--gateway-hook", "xdp") as scenes:
        yield scenes


def on_gateway(scene: Scene, command: str) -> str:
    agent = scene.lab.agent_on(GATEWAY)
    return scene.lab.kubectl(f"-n cilium exec {agent} -- {command}")


def sent_by_xdp(scene: Scene) -> int:
    """How many packets the gateway's XDP program has sent back out."""
    counters = on_gateway(scene, "ethtool -S eth0")
    return sum(map(int, re.findall(r"rx_queue_\d+_xdp_redirect: (\d+)", counters)))


def uplink_of(scene: Scene) -> str:
    """What the gateway says of its uplink, nothing while its agent does not answer."""
    agent = scene.lab.agent_on(GATEWAY)
    done = scene.lab.try_kubectl(f"-n cilium exec {agent} -- outgate status")
    found = re.search(r"^uplink +(.*)$", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def restart_agent(scene: Scene, uplink: str) -> None:
    """Kill the gateway's agent, and wait until the next one says *uplink*."""
    former = agent_process(scene.lab, GATEWAY)
    os.kill(former, signal.SIGKILL)
    wait_until(lambda: uplink_of(scene) == uplink)

    assert agent_process(scene.lab, GATEWAY) != former


def test_every_pod_leaves_as_the_egress_ip(scenes: Scenes) -> None:
    for scene in scenes:
        assert [scene.side.egress_ip] * 3 == scene.all_seen()


def test_downloads_are_whole_and_xdp_sends_them(scenes: Scenes) -> None:
    for scene in scenes:
        before = sent_by_xdp(scene)
        whole = scene.download_is_whole(POD, 16 * MIB)

        assert whole
        assert sent_by_xdp(scene) - before > LEAST_PACKETS * 0.9


@pytest.mark.parametrize("pod", PODS)
def test_ping_is_answered_through_the_gateway(scenes: Scenes, pod: str) -> None:
    for scene in scenes:
        assert "3 received" in scene.ping(pod)


def start_download(scene: Scene, size: int) -> "subprocess.Popen[str]":
    """Begin one that is still running when agents have changed."""
    slowly = f"--limit-rate={BYTES_PER_SECOND}"
    shell = digest_of_download(scene.side.server, size, slowly)
    return start_in(scene.lab, POD, "sh", "-c", shell)


def digest_of(scene: Scene, size: int) -> list[str]:
    """What a whole download's digest is."""
    url = f"http://{scene.side.server}/sha256?bytes={size}"
    return scene.lab.kubectl(f"exec {POD} -- wget -q -O - {url}").split()


def test_killed_agent_leaves_xdp_at_work_and_the_next_one_adopts_it(
    scenes: Scenes,
) -> None:
    scene, size = scenes[0], 128 * MIB
    download = start_download(scene, size)
    before = sent_by_xdp(scene)
    restart_agent(scene, BY_XDP)
    got = finish(download)

    assert digest_of(scene, size) == got
    assert sent_by_xdp(scene) - before > LEAST_PACKETS * 0.9


def test_setting_is_changed_to_tc_while_a_download_runs(scenes: Scenes) -> None:
    scene, size = scenes[0], 512 * MIB
    lab, settings = scene.lab, scene.lab.folder.agent_settings
    asker(scene, "asker", 2)
    download = start_download(scene, size)
    settings.write_text("gateway-hook: tc\n")
    restart_agent(scene, BY_TC)
    shown = on_gateway(scene, "ip -details link show dev eth0")
    is_running = download.poll() is None
    settings.write_text("gateway-hook: xdp\n")
    restart_agent(scene, BY_XDP)
    got = finish(download)
    seen = lab.kubectl("logs asker").split()
    lab.kubectl("delete pod asker --timeout=20s")

    assert is_running
    assert "prog/xdp" not in shown
    assert digest_of(scene, size) == got
    assert {scene.side.egress_ip} == set(seen)
