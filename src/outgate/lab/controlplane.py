"""
The lab's control plane: the API, the kubelets, the scheduler, the keepers.

What this is: ``python -m outgate.lab.controlplane FOLDER``, one asyncio process that
may be stopped, killed and started at any time: pods, agents and traffic live in
processes of their own, objects in a journal.
What this is not: part of the product; the agents see a Kubernetes API like any other.

The API listens on loopback of the machine and inside the first node.
"""

import asyncio
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from outgate.kubeapi.backend import ExecRequest, ExecSession, LogRequest
from outgate.kubeapi.server import ApiServer
from outgate.lab import agents, controllers
from outgate.lab.certificate import make_certificate, server_context
from outgate.lab.definitions import definition_folder, make_definitions
from outgate.lab.exec import start_session
from outgate.lab.holders import read_host
from outgate.lab.informer import Informer
from outgate.lab.inside import socket_inside
from outgate.lab.keeper import keep_pods, make_namespace
from outgate.lab.kubeconfig import new_config, write_config
from outgate.lab.kubelet import Kubelet
from outgate.lab.logs import read_logs
from outgate.lab.nodes import keep_nodes
from outgate.lab.records import find_record, read_record, write_record
from outgate.lab.runtime import Runtime
from outgate.lab.scheduler import keep_scheduled
from outgate.lab.settings import LOOPBACK, ApiAddress, LabSettings, StateFolder
from outgate.lab.strays import keep_strays
from outgate.lab.topology import Topology, in_url, topology_of
from outgate.source.client import Client
from outgate.source.connection import Connection

BACKLOG = 1024


class Backend:
    """What the API asks of whoever runs the pods."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def exec(self, request: ExecRequest) -> ExecSession:
        return await start_session(self._runtime, request)

    def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        return read_logs(self._runtime, request)


def listen(server: socket.socket, address: str, port: int) -> socket.socket:
    """Bind *server*, which may be of another network namespace, and listen."""
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    server.listen(BACKLOG)
    server.setblocking(False)
    return server


def open_api(
    folder: StateFolder, settings: LabSettings, topology: Topology
) -> tuple[ApiAddress, socket.socket]:
    """Listen on loopback; port, token and certificate are chosen once and kept."""
    kept = find_record(folder.api_address, ApiAddress)
    server = listen(
        socket.socket(), LOOPBACK, settings.port or (kept.port if kept else 0)
    )
    addresses = (LOOPBACK, *map(str, topology.control_plane.addresses))
    make_certificate(folder.certificate, folder.key, addresses)
    api = ApiAddress(
        port=server.getsockname()[1],
        token=kept.token if kept else secrets.token_hex(16),
        certificate=folder.certificate.read_text(),
    )
    write_record(folder.api_address, api)
    return api, server


def open_inside(folder: StateFolder, topology: Topology) -> socket.socket:
    """Listen inside the first node, where the agents find the API."""
    first = topology.control_plane
    holder = read_host(folder, first.name).pid
    address = str(first.address)
    return listen(socket_inside(holder, address), address, topology.api_port)


def write_agent_kubeconfig(
    folder: StateFolder, topology: Topology, api: ApiAddress
) -> None:
    """The file by which agents find the API from inside their nodes."""
    host = in_url(topology.control_plane.address)
    server = f"https://{host}:{topology.api_port}"
    write_config(folder.agent_kubeconfig, new_config(api, server, "lab"))


async def serve(folder: StateFolder) -> None:
    """Run everything until SIGTERM or a bug."""
    settings = read_record(folder.settings, LabSettings)
    topology = topology_of(settings.ip_family)
    runtime = Runtime(topology, settings, folder)
    api, server = open_api(folder, settings, topology)
    write_agent_kubeconfig(folder, topology, api)
    apiserver = ApiServer(
        journal=folder.journal,
        backend=Backend(runtime),
        token=api.token,
        service_networks=topology.service_networks,
        addresses=topology.control_plane.addresses,
    )
    tls = server_context(folder.certificate, folder.key)
    await apiserver.start([server, open_inside(folder, topology)], tls)
    print(f"lab: the API listens on {api.server}", flush=True)
    connection = Connection(api.server, token=api.token, ca_data=api.certificate)
    try:
        async with Client(connection) as client:
            await run_loops(client, runtime, topology, settings, folder)
    finally:
        await apiserver.stop()


async def run_loops(
    client: Client,
    runtime: Runtime,
    topology: Topology,
    settings: LabSettings,
    folder: StateFolder,
) -> None:
    """The control loops; each retries what the API refuses."""
    pods = Informer(client, "/api/v1/pods")
    nodes = Informer(client, "/api/v1/nodes")
    for namespace in (agents.NAMESPACE, controllers.NAMESPACE):
        await make_namespace(client, namespace)
    await make_definitions(client, definition_folder())
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    loops = (
        pods.run(),
        nodes.run(),
        keep_nodes(client, nodes, topology),
        Kubelet(client, pods, runtime, topology).run(),
        keep_scheduled(client, pods, nodes),
        keep_strays(client, pods, topology),
        keep_pods(
            client, pods, partial(agents.missing_agents, topology, settings, folder)
        ),
        keep_pods(
            client, pods, partial(controllers.missing_controllers, topology, folder)
        ),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        await stopped.wait()
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(serve(StateFolder(Path(sys.argv[1]))))
