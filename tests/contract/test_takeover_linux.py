"""An agent comes to a node whose maps another version of it made."""

import shutil
import socket
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from contract.kernel_sides import (
    PIN_DIR,
    SETTINGS,
    compile_objects,
    compile_tiny,
    held_by,
    ip,
    isolated,
    start,
)
from outgate.errors import KernelError
from outgate.kernel import syscall
from outgate.kernel.datapath import pin_programs
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.maps import MapName
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import (
    HOST,
    Attachment,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Hook,
    IpcacheEntry,
    IpcacheKey,
    NoGateway,
    PolicyId,
    RowSet,
    RowsKey,
)
from outgate.state.plan import diff
from outgate.state.snapshot import Snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

POD, NETWORK = ip_address("10.0.1.42"), ip_network("203.0.113.0/24")
POLICY = PolicyId(7)
UPLINK: Snapshot = {AttachmentKey("v0", Hook.TO_NETDEV): Attachment.CURRENT}
STALE: Snapshot = dict.fromkeys(UPLINK, Attachment.STALE)
OF_POLICY: Snapshot = {
    CoveredKey(NETWORK): CoveredEntry(POLICY),
    RowsKey(POD): RowSet({NETWORK: NoGateway(POLICY)}),
}
KNOWN: Snapshot = {EndpointKey(POD): EndpointEntry(EndpointFlag.POD)}
NODE: Snapshot = {IpcacheKey(ip_network("172.18.0.5/32")): IpcacheEntry(HOST, None)}
EVERYTHING: Snapshot = {**NODE, **OF_POLICY, **KNOWN, **UPLINK}

OTHER_VALUES = ("-DIPCACHE_VALUE=12",)
OTHER_EGRESS = ("-DEGRESS_VALUE=20",)
SMALLER = ("-DCOVERED_ROOM=2", "-DEGRESS_ROOM=2")
OTHER_CONFIG = ("-DCONFIG_ROOM=2", "-DMETRICS_ROOM=32")


async def become_the_other(
    defines: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let an agent of another version fill and attach; its ipcache has no row."""
    with monkeypatch.context() as former:
        objects = compile_tiny(folder, defines)
        former.setenv("OUTGATE_BPF_OBJECTS", str(objects))
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        kernel = await start()
        await converge(kernel, {**OF_POLICY, **KNOWN, **UPLINK})
        kernel.close()


async def converge(kernel: LinuxKernel, desired: Snapshot) -> None:
    assert await kernel.apply(diff(desired, await held_by(kernel))) == {}


def attached() -> tuple[int, ...]:
    index = socket.if_nametoindex("v0")
    return syscall.attached_programs(index, syscall.AttachType.TCX_EGRESS)


def pins() -> dict[str, tuple[int, int]]:
    """Return the sizes of every pinned map."""
    found = {}
    for path in PIN_DIR.iterdir():
        if path.is_file():
            with PinnedMap(path) as opened:
                found[path.name] = opened.shape.key_size, opened.shape.value_size
    return found


@pytest.mark.parametrize("other", [OTHER_VALUES, OTHER_CONFIG], ids=["rows", "config"])
def test_former_programs_go_on_until_the_new_rows_are_there(
    other: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        await become_the_other(other, tmp_path, monkeypatch)
        before = attached()
        kernel = await start()
        opened, held = attached(), await held_by(kernel)
        await converge(kernel, EVERYTHING)

        assert opened == before
        assert held == {**OF_POLICY, **KNOWN, **STALE}
        assert await held_by(kernel) == EVERYTHING
        assert not set(attached()) & set(before)
        assert pins()[MapName.IPCACHE] == (24, 24)
        assert not [name for name in pins() if name.startswith("former_")]

    isolated(body)


def test_maps_are_not_taken_for_filled_when_rows_of_policies_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's addresses in ipcache would make an agent attach at once."""

    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        former = await start()
        await converge(former, EVERYTHING)
        former.close()
        objects = compile_tiny(tmp_path, OTHER_EGRESS)
        monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(objects))
        held = await held_by(await start())

        assert EVERYTHING.keys() - held.keys() == {RowsKey(POD), *NODE}

    isolated(body)


def test_rows_move_to_maps_with_more_room_before_the_source_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the node's addresses, by which an agent takes the maps for filled."""

    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        with monkeypatch.context() as former:
            objects = compile_tiny(tmp_path, SMALLER)
            former.setenv("OUTGATE_BPF_OBJECTS", str(objects))
            kernel = await start()
            await converge(kernel, EVERYTHING)
            kernel.close()
        before = attached()
        kernel = await start()

        assert attached() == before
        assert await held_by(kernel) == {**EVERYTHING, **STALE}
        assert room(MapName.COVERED_V4) == 64
        assert not [name for name in pins() if name.startswith("former_")]

    isolated(body)


def test_rows_that_do_not_fit_do_not_make_the_maps_look_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        former = await start()
        nets = [ip_network(f"203.0.{i}.0/24") for i in range(3)]
        many: Snapshot = {CoveredKey(net): CoveredEntry(POLICY) for net in nets}
        await converge(former, {**NODE, **many})
        former.close()
        objects = compile_tiny(tmp_path, SMALLER)
        monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(objects))
        held = await held_by(await start())

        assert len(held) == 2
        assert not NODE.keys() & held.keys()

    isolated(body)


def room(name: MapName) -> int:
    with PinnedMap(PIN_DIR / name) as opened:
        return opened.shape.entries


def test_maps_of_a_directory_without_our_config_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cilium pins maps of the same names."""

    async def body() -> None:
        await become_the_other(OTHER_VALUES, tmp_path, monkeypatch)
        (PIN_DIR / MapName.CONFIG).unlink()
        before = pins()
        with pytest.raises(KernelError, match=r"cilium_ipcache.*another pin directory"):
            await start()

        assert pins() == before

    isolated(body)


def test_the_former_maps_are_back_when_a_program_is_refused(
    tiny_objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = shutil.copytree(tiny_objects, tmp_path / "objects")
    source = tmp_path / "bad.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("tc") int HOOK(struct __sk_buff *skb)\n'
        "{ return *(char *)(long)skb->data; }\n"
        'char _license[] SEC("license") = "GPL";\n'
    )
    compile_objects(source, objects, Hook.FROM_NETDEV)
    (tmp_path / "former").mkdir()

    async def body() -> None:
        await become_the_other(OTHER_VALUES, tmp_path / "former", monkeypatch)
        before = attached()
        monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(objects))
        with pytest.raises(KernelError, match="invalid access to packet"):
            await start()

        assert pins()[MapName.IPCACHE] == (24, 12)
        assert attached() == before

    isolated(body)


def test_loading_for_inspection_replaces_no_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        await become_the_other(OTHER_VALUES, tmp_path, monkeypatch)
        with pytest.raises(KernelError, match=r"cilium_ipcache.*another version"):
            pin_programs(PIN_DIR, SETTINGS)

        assert pins()[MapName.IPCACHE] == (24, 12)

    isolated(body)
