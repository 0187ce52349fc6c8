"""Kubeconfig files as kubectl reads them, and what is refused with a mend."""

import base64
from pathlib import Path

import pytest

from outgate.errors import ConfigError
from outgate.source import kubeconfig
from outgate.source.connection import ClientCertificate, Connection

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


def test_load_reads_certificate_files_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "me.crt").write_text("CRT")
    (tmp_path / "me.key").write_text("KEY")
    path = _write(
        tmp_path / "c",
        "users: [{name: me, user: {client-certificate: me.crt, client-key: me.key}}]",
    )

    assert kubeconfig.load(path).client_certificate == ClientCertificate("CRT", "KEY")


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
        ("users: [{name: me, user: {exec: {command: x}}}]", "credential plugin"),
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
