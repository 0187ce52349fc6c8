"""
``outgate lab up|down|status``: a whole cluster on this machine.

What this is: arguments in, calls of ``outgate.lab``, lines out.
What this is not: the lab.

Exit codes: 0 done; 1 not done, with one line that says why; for ``status``, 1 also
when the lab does not run or is not whole.
"""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from outgate.lab import cluster, kubeconfig
from outgate.lab.overview import describe, look
from outgate.lab.settings import (
    DEFAULT_NAME,
    GatewayPath,
    IpFamily,
    LabSettings,
    PodNetwork,
    StateFolder,
)
from outgate.policy.xdp import GatewayHook

app = typer.Typer(
    help="A whole cluster on this machine: nodes, pods, an API, an agent per node.",
    no_args_is_help=True,
    add_completion=False,
)

PASSED_ON = (
    "OUTGATE_BPF_OBJECTS",
    "OUTGATE_LIBBPF",
    "OUTGATE_ATTACH",
    "OUTGATE_EXISTING_FLOWS",
    "OUTGATE_OTHER_FAMILY",
)
"""What the agents of the lab get from the environment of ``lab up``."""

Name = Annotated[str, typer.Option(help="Which lab; several may run.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig", help="The file to change: $KUBECONFIG or ~/.kube/config."
    ),
]


def _say(line: str) -> None:
    typer.echo(f"lab: {line}")


@app.command()
def up(
    name: Name = DEFAULT_NAME,
    config: ConfigOption = None,
    ip_family: Annotated[
        IpFamily, typer.Option(help="The addresses of nodes, pods and the outside.")
    ] = IpFamily.IPV4,
    network: Annotated[
        PodNetwork, typer.Option(help="The CNI plugin of the pods.")
    ] = PodNetwork.PTP,
    gateway_path: Annotated[
        GatewayPath, typer.Option(help="How gateways send on tunnelled packets.")
    ] = GatewayPath.DIRECT,
    gateway_hook: Annotated[
        GatewayHook,
        typer.Option(
            help="Where gateways meet packets first; xdp takes the checksum offload "
            "from pods and echo, because a veth hands unfinished checksums on."
        ),
    ] = GatewayHook.AUTO,
    mtu: Annotated[
        int | None,
        typer.Option(
            help="The pods' MTU; the nodes' network has 1500.  Default: what fits "
            "the tunnel, 1450 or (ipv6) 1430.",
            min=576,
            max=1500,
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            help="The API's port on loopback; 0 chooses one.", min=0, max=65535
        ),
    ] = 0,
) -> None:
    """Start the lab, or check the one that runs; make it kubectl's current context."""
    settings = LabSettings(
        name=name,
        ip_family=ip_family,
        network=network,
        gateway_path=gateway_path,
        gateway_hook=gateway_hook,
        mtu=mtu,
        port=port,
        agent_environment={
            key: os.environ[key] for key in PASSED_ON if key in os.environ
        },
    )
    asyncio.run(cluster.up(settings, config or kubeconfig.default_path(), _say))


@app.command()
def down(name: Name = DEFAULT_NAME, config: ConfigOption = None) -> None:
    """Take the lab away with every trace of it."""
    LabSettings(name=name)
    asyncio.run(cluster.down(name, config or kubeconfig.default_path(), _say))


@app.command()
def status(name: Name = DEFAULT_NAME, config: ConfigOption = None) -> None:
    """Show the lab's nodes, agents and pods, and whether kubectl reaches it."""
    LabSettings(name=name)
    overview = asyncio.run(look(StateFolder.of(name)))
    known = kubeconfig.read_config(config or kubeconfig.default_path()) or {}
    typer.echo(describe(overview, known.get("current-context") or ""))
    if not overview.is_whole:
        raise typer.Exit(1)
