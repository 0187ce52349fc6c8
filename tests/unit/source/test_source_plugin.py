"""Credential plugins: real programs, what they are told, what they may print."""

import json
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outgate.errors import SourceError
from outgate.source.connection import ClientCertificate, ExecPlugin
from outgate.source.plugin import PluginCredential, read_credential, run_plugin

V1 = "client.authentication.k8s.io/v1"


def _printed(version: str = V1, **status: str) -> bytes:
    document = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    return json.dumps(document).encode()


def _program(path: Path, body: str) -> str:
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


ECHO = """
told = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
told["status"] = {"token": json.dumps([told["spec"], sys.argv[1:], os.environ["P"]])}
print(json.dumps(told))
"""


async def test_plugin_is_told_what_kubectl_would_tell(tmp_path: Path) -> None:
    command = _program(tmp_path / "login", ECHO)
    plugin = ExecPlugin(V1, command, ("a", "b"), {"P": "x"}, cluster={"server": "s"})
    found = await run_plugin(plugin)

    assert found.token is not None
    spec = {"interactive": False, "cluster": {"server": "s"}}
    assert json.loads(found.token) == [spec, ["a", "b"], "x"]


async def test_plugin_that_is_not_there_says_how_to_install_it() -> None:
    with pytest.raises(SourceError, match="No such file or directory; apt install it"):
        await run_plugin(ExecPlugin(V1, "/nowhere", install_hint="apt install it\n"))


async def test_plugin_that_fails_is_quoted(tmp_path: Path) -> None:
    command = _program(tmp_path / "login", "sys.exit('please log in')")

    with pytest.raises(SourceError, match="exit status 1: please log in"):
        await run_plugin(ExecPlugin(V1, command))


async def test_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    command = _program(tmp_path / "login", "time.sleep(60)")

    with pytest.raises(SourceError, match="not done after"):
        await run_plugin(ExecPlugin(V1, command), 0.1)


def test_credential_may_be_a_certificate() -> None:
    printed = _printed(
        clientCertificateData="CRT",
        clientKeyData="KEY",
        expirationTimestamp="2026-01-02T03:04:05Z",
    )

    assert read_credential(printed, V1, "x") == PluginCredential(
        None,
        ClientCertificate("CRT", "KEY"),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (b"hello", "it printed no ExecCredential"),
        (_printed(token=""), "neither a token nor a certificate"),
        (_printed(clientKeyData="x"), "one of clientCertificateData and clientKeyData"),
        (_printed("client.authentication.k8s.io/v1beta1", token="t"), "asks for an"),
    ],
)
def test_credential_that_cannot_serve_is_refused(printed: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_credential(printed, V1, "x")
