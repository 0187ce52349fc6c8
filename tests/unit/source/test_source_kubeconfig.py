"""Kubeconfig files as kubectl reads them, and what is refused with a mend."""

import base64
from pathlib import Path

import pytest

from outgate.errors import ConfigError
from outgate.source import kubeconfig
from outgate.source.connection import (
    CertificateFiles,
    ClientCertificate,
    Connection,
    ExecPlugin,
)

HEAD = """\
apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: lab
  cluster: {server: "https://127.0.0.1:6443", certificate-authority: ca.crt}
- name: far
  cluster: {server: "https://far/k8s", insecure-skip-tls-verify: true}
contexts:
- name: lab
  context: {cluster: lab, user: me}
- name: far
  context: {cluster: far, user: other}
"""


def _write(path: Path, users: str) -> Path:
    path.write_text(HEAD + users)
    return path


def test_load_current_context_with_a_token(tmp_path: Path) -> None:
    path = _write(tmp_path / "c", "users: [{name: me, user: {token: abc}}]")

    expected = Connection(
        "https://127.0.0.1:6443", token="abc", ca_file=tmp_path / "ca.crt"
    )
    assert expected == kubeconfig.load(path)


def test_load_named_context_with_inline_certificates(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    path = _write(
        tmp_path / "c",
        f"users: [{{name: other, user: {{client-certificate-data: {data},"
        f" client-key-data: {data}}}}}]",
    )

    expected = Connection(
        "https://far/k8s",
        client_certificate=ClientCertificate("PEM", "PEM"),
        insecure=True,
    )
    assert expected == kubeconfig.load(path, "far")


def test_load_finds_certificate_files_beside_the_kubeconfig(tmp_path: Path) -> None:
    """They are read when they are needed: others replace them while we run."""
    path = _write(
        tmp_path / "c",
        "users: [{name: me, user: {client-certificate: me.crt, client-key: me.key}}]",
    )

    expected = CertificateFiles(tmp_path / "me.crt", tmp_path / "me.key")
    assert expected == kubeconfig.load(path).client_certificate


EXEC = """\
users:
- name: me
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: ./bin/login
      args: [token, --cluster=x]
      env: [{name: PROFILE, value: p}]
      installHint: install login
      interactiveMode: IfAvailable
      provideClusterInfo: true
"""


def test_load_reads_a_credential_plugin(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("PEM")
    plugin = kubeconfig.load(_write(tmp_path / "c", EXEC)).plugin

    assert plugin == ExecPlugin(
        "client.authentication.k8s.io/v1",
        str(tmp_path / "bin/login"),
        ("token", "--cluster=x"),
        {"PROFILE": "p"},
        "install login",
        {
            "server": "https://127.0.0.1:6443",
            "certificate-authority-data": base64.b64encode(b"PEM").decode(),
        },
    )


def test_load_looks_for_a_plugin_without_a_folder_in_the_path(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("PEM")
    plugin = kubeconfig.load(
        _write(tmp_path / "c", EXEC.replace("./bin/login", "login"))
    ).plugin

    assert plugin is not None
    assert plugin.command == "login"


OTHER = "users: [{name: other, user: {token: t}}]"


def test_load_reads_the_proxy_and_the_name_to_check(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text(
        HEAD.replace("tls-verify: true", "tls-verify: false")
        .replace('"https://far/k8s",', '"https://far/k8s", proxy-url: "http://p:3128",')
        .replace("insecure", "tls-server-name: api, insecure")
        + OTHER
    )
    connection = kubeconfig.load(path, "far")

    assert (connection.proxy, connection.server_name) == ("http://p:3128", "api")
    assert not connection.insecure


def test_load_refuses_a_proxy_that_it_cannot_speak_with(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text(
        HEAD.replace(
            '"https://far/k8s"', '"https://far/k8s", proxy-url: "socks5://p:1"'
        )
        + OTHER
    )

    with pytest.raises(ConfigError, match=r"proxy-url: 'socks5://p:1' .* HTTP proxy"):
        kubeconfig.load(path, "far")


def test_load_joins_the_files_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _write(tmp_path / "one", "")
    (tmp_path / "two").write_text("users: [{name: me, user: {tokenFile: t}}]")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'two'}:{tmp_path / 'no'}")

    assert kubeconfig.load().token_file == tmp_path / "t"


def test_load_in_a_pod_uses_its_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("t")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    expected = Connection(
        "https://10.96.0.1:443",
        token_file=tmp_path / "token",
        ca_file=tmp_path / "ca.crt",
    )
    assert expected == kubeconfig.load()


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ("users: [{name: me, user: {exec: {command: x}}}]", "exec.apiVersion ''"),
        (EXEC.replace("io/v1", "io/v1alpha1"), "use one of client.authentication"),
        (EXEC.replace("IfAvailable", "Always"), "use IfAvailable or Never"),
        (EXEC.replace("./bin/login", "''"), "name the program to run"),
        ("users: [{name: me, user: {auth-provider: {name: x}}}]", "use exec with"),
        ("users: [{name: me, user: {username: x}}]", "use a token or a certificate"),
        ("users: []", "'me', who is not there"),
        (
            "users: [{name: me, user: {client-certificate-data: eA==}}]",
            "has no client-key",
        ),
        ("users: [{name: me, user: {token: 5}}]", r"users\[0\].user.token"),
        ("users: [", "kubeconfig"),
    ],
)
def test_load_refuses_with_the_reason(tmp_path: Path, users: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kubeconfig.load(_write(tmp_path / "c", users))


def test_load_unknown_context_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are: far, lab"):
        kubeconfig.load(_write(tmp_path / "c", ""), "nowhere")


def test_load_without_any_source_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(ConfigError, match="give --kubeconfig"):
        kubeconfig.load()
