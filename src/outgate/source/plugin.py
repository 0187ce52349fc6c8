"""
Credentials from a program, as ``kubectl`` runs it (client.authentication.k8s.io).

What it is: one run of the program named in a kubeconfig's ``exec``, and what it
printed, checked.

What it is not: a keeper of what it said; ``credentials`` knows when to ask again.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from outgate.errors import SourceError
from outgate.source.connection import ClientCertificate, ExecPlugin

API_VERSIONS = (
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
)

RUN_SECONDS = 60.0
"""Such programs speak with a cloud; one that hangs must not hang us."""


@dataclass(frozen=True, slots=True)
class PluginCredential:
    """What the program printed; *expires* is None when it did not say."""

    token: str | None = field(repr=False)
    certificate: ClientCertificate | None
    expires: datetime | None


class _Status(msgspec.Struct, rename="camel"):
    expiration_timestamp: datetime | None = None
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    status: _Status | None = None


async def run_plugin(
    plugin: ExecPlugin, seconds: float = RUN_SECONDS
) -> PluginCredential:
    """
    Run the program once.

    Errors: ``SourceError`` that names the command and the reason; tried again with
    the request that needed it.
    """
    who = f"credential plugin {plugin.command}"
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.arguments,
            env=_environment(plugin),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as e:
        hint = f"; {plugin.install_hint.strip()}" if plugin.install_hint else ""
        raise SourceError(f"{who}: {e.strerror}{hint}") from e
    try:
        async with asyncio.timeout(seconds):
            output, complaint = await process.communicate()
    except TimeoutError as e:
        raise SourceError(f"{who}: not done after {seconds:g} s") from e
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines()
        last = lines[-1][:200] if lines else "it said nothing"
        raise SourceError(f"{who}: exit status {process.returncode}: {last}")
    return read_credential(output, plugin.api_version, who)


def read_credential(output: bytes, api_version: str, who: str) -> PluginCredential:
    """Return what a program printed, once it is whole and of the right version."""
    try:
        found = msgspec.json.decode(output, type=_ExecCredential)
    except msgspec.DecodeError as e:
        raise SourceError(f"{who}: it printed no ExecCredential: {e}") from e
    if (found.kind, found.api_version) != ("ExecCredential", api_version):
        raise SourceError(
            f"{who}: it printed {found.kind!r} of {found.api_version!r}; the kubeconfig"
            f" asks for an ExecCredential of {api_version!r}"
        )
    status = found.status or _Status()
    certificate, key = status.client_certificate_data, status.client_key_data
    if bool(certificate) != bool(key):
        raise SourceError(
            f"{who}: it printed one of clientCertificateData and clientKeyData; both"
            " are needed, or a token"
        )
    if not status.token and not certificate:
        raise SourceError(f"{who}: it printed neither a token nor a certificate")
    own = ClientCertificate(certificate, key) if certificate and key else None
    expires = status.expiration_timestamp
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    return PluginCredential(status.token or None, own, expires)


def _environment(plugin: ExecPlugin) -> Mapping[str, str]:
    spec: dict[str, object] = {"interactive": False}
    if plugin.cluster is not None:
        spec["cluster"] = plugin.cluster
    told = {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec}
    told_text = msgspec.json.encode(told).decode()
    return {**os.environ, **plugin.environment, "KUBERNETES_EXEC_INFO": told_text}
