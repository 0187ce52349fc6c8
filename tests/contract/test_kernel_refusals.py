"""What the real kernel refuses, and what the agent may not do to a node."""

import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from contract.isolation import BPF_FS
from contract.kernel_sides import (
    PIN_DIR,
    SETTINGS,
    TUNNEL,
    compile_objects,
    compile_tiny,
    held_by,
    ip,
    isolated,
    start,
)
from outgate.errors import KernelError
from outgate.kernel import syscall
from outgate.kernel.datapath import load_programs, pin_programs
from outgate.kernel.maps import MapName
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import (
    FORWARD_GUARD,
    Attachment,
    AttachmentKey,
    Hook,
    TunnelKey,
)
from outgate.state.plan import Put

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

UPLINK = AttachmentKey("v0", Hook.TO_NETDEV)


def test_a_pin_that_cannot_be_written_is_a_failure_of_its_attachment() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        kernel = await start()
        await kernel.observe()
        make_read_only(BPF_FS)
        failures = await kernel.apply([Put(UPLINK, Attachment.CURRENT)])

        assert "Read-only file system" in str(failures[UPLINK])

    isolated(body)


def test_a_batch_that_the_kernel_does_not_count_is_refused_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(command: object, attribute: object) -> int:
        raise OSError(errno.EPERM, "bpf")

    async def body() -> None:
        kernel = await start()
        rows = {bytes([i, 0, 0, 0]): bytes(4) for i in range(3)}
        with PinnedMap(PIN_DIR / MapName.NODE_V4) as opened:
            monkeypatch.setattr(syscall, "bpf", refuse)
            assert opened.put_many(rows).keys() == rows.keys()
        kernel.close()

    isolated(body)


def test_a_device_that_is_no_tunnel_is_never_replaced_by_one() -> None:
    """Who sets tunnel-device to the name of the uplink keeps the uplink."""

    async def body() -> None:
        ip("link", "add", TUNNEL.name, "type", "veth", "peer", "name", "v1")
        index = socket.if_nametoindex(TUNNEL.name)
        kernel = await start()
        failures = await kernel.apply([Put(TunnelKey(), TUNNEL)])

        assert "another tunnel-device" in str(failures[TunnelKey()])
        assert socket.if_nametoindex(TUNNEL.name) == index

    isolated(body)


def test_a_taken_tunnel_port_is_answered_with_the_setting() -> None:
    async def body() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", TUNNEL.port))
            kernel = await start()
            failures = await kernel.apply([Put(TunnelKey(), TUNNEL)])

        assert "tunnel-port" in str(failures[TunnelKey()])
        assert await held_by(kernel) == {}

    isolated(body)


def test_a_pin_directory_elsewhere_is_answered_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="mount -t bpf"):
        load_programs(tmp_path / "pins", SETTINGS)

    assert list(tmp_path.iterdir()) == []


def test_loading_for_inspection_names_a_pinned_map_of_another_version(
    tiny_objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_tiny(tmp_path, ("-DEGRESS_ROOM=8",))

    async def body() -> None:
        pin_programs(PIN_DIR, SETTINGS)
        monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(tmp_path))
        with pytest.raises(KernelError, match=r"cilium_egress_v4.*another version"):
            pin_programs(PIN_DIR, SETTINGS)

    isolated(body)


def test_a_refusal_of_the_verifier_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "bad.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("tc") int HOOK(struct __sk_buff *skb)\n'
        "{ return *(char *)(long)skb->data; }\n"
        'char _license[] SEC("license") = "GPL";\n'
    )
    compile_objects(source, tmp_path, Hook.FROM_CONTAINER)
    monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(tmp_path))

    async def body() -> None:
        with pytest.raises(KernelError, match="invalid access to packet"):
            load_programs(PIN_DIR, SETTINGS)

    isolated(body)


def test_a_kernel_that_refuses_the_guard_keeps_the_other_hooks(
    tiny_objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the verifier refuses stands for a type that the kernel does not know."""
    objects = shutil.copytree(tiny_objects, tmp_path / "objects")
    source = tmp_path / "bad.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("netfilter") int HOOK(struct __sk_buff *skb) { return skb->len; }\n'
        'char _license[] SEC("license") = "GPL";\n'
    )
    compile_objects(source, objects, Hook.FORWARD_GUARD)
    monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(objects))

    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        kernel = await start()
        await kernel.observe()
        hooks = (UPLINK, FORWARD_GUARD)
        failures = await kernel.apply([Put(key, Attachment.CURRENT) for key in hooks])

        assert set(failures) == {FORWARD_GUARD}
        assert "needs Linux 6.6 with BPF links" in str(failures[FORWARD_GUARD])
        assert await held_by(kernel) == {UPLINK: Attachment.CURRENT}

    isolated(body)


def test_path_direct_starts_on_a_kernel_without_nftables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\necho 'Operation not supported' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    async def body() -> None:
        (await start(GatewayPath.DIRECT)).close()
        with pytest.raises(KernelError, match="Operation not supported"):
            await start(GatewayPath.STACK)

    isolated(body)


def make_read_only(mount: Path) -> None:
    subprocess.run(("mount", "-o", "remount,ro", str(mount)), check=True)
