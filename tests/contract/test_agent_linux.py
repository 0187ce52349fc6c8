"""An agent over the real kernel while its API is away."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from contract.kernel_sides import PIN_DIR, SETTINGS, TUNNEL, ip, isolated, start
from outgate.agent.agent import Agent
from outgate.agent.config import load_config
from outgate.kernel import syscall
from outgate.kernel.linux import KernelConfig, LinuxKernel
from outgate.kernel.syscall import AttachType
from outgate.source.client import Client
from outgate.source.connection import Connection
from outgate.source.kubernetes import KubernetesSource
from outgate.state.entries import HOST, IpcacheEntry, IpcacheKey, NodeName
from outgate.state.plan import Put

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

NODE = NodeName("n1")
OWN = IpcacheKey(IPv4Network(IPv4Address("192.0.2.1")))
NOBODY = Connection("http://127.0.0.1:1")


def test_a_new_pods_veth_gets_its_programs_while_the_api_is_away(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        kernel = await start()
        await kernel.apply([Put(OWN, IpcacheEntry(HOST, None))])
        kernel.close()
        async with Client(NOBODY) as client, asyncio.timeout(10):
            kernel = LinuxKernel(KernelConfig(PIN_DIR, TUNNEL.name, SETTINGS))
            running = asyncio.create_task(run_agent(kernel, client, tmp_path))
            with pod_interface("v0"):
                programs: tuple[int, ...] = ()
                while not programs:
                    await asyncio.sleep(0.01)
                    programs = from_container_programs("v0")
            running.cancel()

        assert len(programs) == 2

    isolated(body)


async def run_agent(kernel: LinuxKernel, client: Client, folder: Path) -> None:
    flags = {"node": NODE, "status-socket": str(folder / "agent.sock")}
    source = KubernetesSource(client, NODE)
    await Agent(load_config(flags, {}), kernel, source).run(asyncio.Event())


def from_container_programs(interface: str) -> tuple[int, ...]:
    index = socket.if_nametoindex(interface)
    return syscall.attached_programs(index, AttachType.TCX_INGRESS)


@contextmanager
def pod_interface(name: str) -> Iterator[None]:
    """Make a veth whose other end lives in the namespace of a process."""
    with subprocess.Popen(
        ("unshare", "--net", "sh", "-c", "echo ready; cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"ready\n"
        peer = ("peer", "name", "eth0", "netns", str(holder.pid))
        ip("link", "add", name, "type", "veth", *peer)
        try:
            yield
        finally:
            ip("link", "del", name)
            holder.kill()
