"""
An uplink for tests of XDP in namespaces of their own, and what the kernel says of it.

Called by ``test_xdp_linux``; not the agent's way to look, which is what they test.
"""

import os
import subprocess
from collections.abc import Mapping

from contract.kernel_sides import PIN_DIR, SETTINGS, ip, start
from outgate.kernel import syscall
from outgate.kernel.layouts import XDP_DEVICE, XDP_DEVICE_KEY, XDP_PROGRAM
from outgate.kernel.links import FOLDER, pin_name
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.maps import MapName
from outgate.kernel.objects import load_program
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.settings import CONFIG_KEY, RuntimeConfig
from outgate.state.entries import Attachment, AttachmentKey, Family, Hook
from outgate.state.facts import Link
from outgate.state.plan import Put

UPLINK = AttachmentKey("v0", Hook.XDP_NETDEV)
CURRENT, STALE = Attachment.CURRENT, Attachment.STALE
PIN = PIN_DIR / FOLDER / pin_name(UPLINK, Family.V4)


def add_link(*, can_send: bool) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    if can_send:
        subprocess.run(("ethtool", "-K", "v1", "gro", "on"), check=True)
    for name in ("v0", "v1"):
        ip("link", "set", name, "up")


async def with_link(*, can_send: bool = False) -> LinuxKernel:
    """Start an agent's kernel side in a namespace with a veth and a bridge."""
    add_link(can_send=can_send)
    ip("link", "add", "br0", "type", "bridge")
    kernel = await start(is_xdp_used=True)
    await kernel.observe()
    return kernel


async def attach(kernel: LinuxKernel) -> None:
    await kernel.observe()

    assert await kernel.apply([Put(UPLINK, CURRENT)]) == {}


def put_foreign(mode: str) -> int:
    """Attach a program by ``ip``, as a network plugin does; return its id."""
    program = load_program(Hook.XDP_NETDEV, Family.V6, PIN_DIR, SETTINGS.encode())
    path = PIN_DIR / "foreign"
    syscall.obj_pin(program.fd, path)
    os.close(program.fd)
    ip("link", "set", "dev", "v0", mode, "pinned", str(path))
    return program.number


def link_of(kernel: LinuxKernel, name: str = "v0") -> Link:
    (link,) = (link for link in kernel.facts.links if link.name == name)
    return link


def shown(name: str) -> str:
    """Return what ``ip`` says of an interface."""
    done = subprocess.run(
        ("ip", "-details", "link", "show", "dev", name),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def mode_of(name: str) -> str:
    text = shown(name)
    if "prog/xdp" not in text:
        return ""
    return "generic" if "xdpgeneric" in text else "native"


def program_of(name: str) -> int:
    """Return the id of the XDP program of an interface."""
    words = shown(name).split()
    return int(words[words.index("id", words.index("prog/xdp")) + 1])


def joined() -> int:
    """Return the id of the program that IPv4's goes on with."""
    with PinnedMap(PIN_DIR / MapName.XDP) as table:
        (number,) = XDP_PROGRAM.unpack(table.get(bytes(4)))
    return int(number)


def route_generation() -> int:
    """Return which generation of routes programs see."""
    with PinnedMap(PIN_DIR / MapName.CONFIG) as table:
        return RuntimeConfig.decode(table.get(CONFIG_KEY.pack(0))).route_generation


def devices() -> Mapping[int, int]:
    """Return the MTU of each interface that XDP may send out of, which are veths."""
    with PinnedMap(PIN_DIR / MapName.XDP_DEVICE) as table:
        rows = {
            XDP_DEVICE_KEY.unpack(key)[0]: XDP_DEVICE.unpack(value)
            for key, value in table.rows()
        }
    assert all(is_veth for _, is_veth in rows.values())
    return {index: mtu for index, (mtu, _) in rows.items()}
