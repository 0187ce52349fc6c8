"""
Find the API server and our credentials: kubeconfig files, or the pod's own account.

What it is: the rules that ``kubectl`` follows for ``$KUBECONFIG``, contexts, inline
data and files: tokens, client certificates, credential plugins, proxies.

What it is not: the keeper of what changes (``credentials``) or the runner of plugins
(``plugin``).  What Kubernetes itself has given up (``auth-provider``, passwords) is
refused with the mend.  Called by the agent, the controller and the lab.
"""

import base64
import binascii
import os
from pathlib import Path

import msgspec
import yaml

from outgate.errors import ConfigError
from outgate.source.connection import (
    CertificateFiles,
    ClientCertificate,
    Connection,
    ExecPlugin,
)
from outgate.source.plugin import API_VERSIONS
from outgate.source.proxies import check_proxy

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_FOR_PLUGINS = "client.authentication.k8s.io/exec"
"""The extension of a cluster that is passed to plugins as it is."""


class _Extension(msgspec.Struct):
    name: str
    extension: object = None


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    extensions: list[_Extension] | None = None


class _Variable(msgspec.Struct):
    name: str
    value: str = ""


class _Exec(msgspec.Struct, rename="camel"):
    command: str = ""
    api_version: str = ""
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class _User(msgspec.Struct, rename="kebab"):
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    username: str = ""
    exec: _Exec | None = None
    auth_provider: object = None


class _Context(msgspec.Struct):
    cluster: str = ""
    user: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: _User


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _File(msgspec.Struct):
    current_context: str = msgspec.field(default="", name="current-context")
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


def load(path: Path | None = None, context: str | None = None) -> Connection:
    """
    Return the connection that *context* names, or the current one.

    Order: *path*; the files of ``$KUBECONFIG``, where the first to say something
    wins; ``~/.kube/config``; the service account of the pod we run in.

    Errors: ``ConfigError`` that names the file, the field and the mend.
    """
    paths = [path] if path is not None else _usual_paths()
    if not paths:
        return _from_service_account()
    files = [(found, _read(found)) for found in paths]
    wanted = context or next(
        (file.current_context for _, file in files if file.current_context), ""
    )
    names = ", ".join(str(found) for found in paths)
    if not wanted:
        raise ConfigError(
            f"{names}: current-context is empty; choose one with"
            " `kubectl config use-context NAME`"
        )
    return _connect(files, wanted, names)


def _usual_paths() -> list[Path]:
    named = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    if named:
        existing = [path for path in named if path.exists()]
        if not existing:
            raise ConfigError(f"KUBECONFIG: {named[0]} does not exist")
        return existing
    usual = Path.home() / ".kube" / "config"
    return [usual] if usual.exists() else []


def _read(path: Path) -> _File:
    try:
        document = yaml.safe_load(path.read_text())
        return msgspec.convert(document or {}, _File)
    except OSError as e:
        raise ConfigError(f"kubeconfig {path}: {e.strerror}") from e
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as e:
        raise ConfigError(f"kubeconfig {path}: {e}") from e


def _connect(files: list[tuple[Path, _File]], name: str, names: str) -> Connection:
    contexts = [c for _, file in files for c in file.contexts or () if c.name == name]
    if not contexts:
        known = sorted({c.name for _, file in files for c in file.contexts or ()})
        raise ConfigError(
            f"{names}: there is no context {name!r}; there are: {', '.join(known)}"
        )
    chosen = contexts[0].context
    clusters = [
        (path.parent, c.cluster)
        for path, file in files
        for c in file.clusters or ()
        if c.name == chosen.cluster
    ]
    if not clusters or not clusters[0][1].server:
        raise ConfigError(
            f"{names}: context {name!r} names cluster {chosen.cluster!r},"
            " which has no server"
        )
    users = [
        (path.parent, u.user)
        for path, file in files
        for u in file.users or ()
        if u.name == chosen.user
    ]
    if chosen.user and not users:
        raise ConfigError(
            f"{names}: context {name!r} names user {chosen.user!r}, who is not there"
        )
    user = users[0] if users else (Path(), _User())
    return _join(clusters[0], user, f"{names}: user {chosen.user!r}")


def _join(
    located_cluster: tuple[Path, _Cluster], located_user: tuple[Path, _User], who: str
) -> Connection:
    base, cluster = located_cluster
    folder, user = located_user
    if user.auth_provider is not None:
        raise ConfigError(
            f"{who} has an auth-provider, which Kubernetes has removed; use exec with"
            " the credential plugin of your cloud, a token, or a client certificate"
        )
    if user.username:
        raise ConfigError(
            f"{who} uses a user name and password; use a token or a certificate"
        )
    ca = cluster.certificate_authority
    inline_ca = cluster.certificate_authority_data
    proxy = cluster.proxy_url
    return Connection(
        server=cluster.server,
        token=user.token or None,
        token_file=folder / user.token_file if user.token_file else None,
        ca_file=base / ca if ca and not inline_ca else None,
        ca_data=_decode(inline_ca, "certificate-authority-data") or None,
        client_certificate=_certificate(folder, user, who),
        plugin=_plugin(base, cluster, folder, user.exec, who) if user.exec else None,
        server_name=cluster.tls_server_name or None,
        insecure=cluster.insecure_skip_tls_verify,
        proxy=check_proxy(proxy, f"{who}: proxy-url") if proxy else None,
    )


def _plugin(
    base: Path, cluster: _Cluster, folder: Path, asked: _Exec, who: str
) -> ExecPlugin:
    if not asked.command:
        raise ConfigError(f"{who}: exec.command is empty; name the program to run")
    if asked.api_version not in API_VERSIONS:
        raise ConfigError(
            f"{who}: exec.apiVersion {asked.api_version!r} is not supported; use one of"
            f" {', '.join(API_VERSIONS)}"
        )
    if asked.interactive_mode == "Always":
        raise ConfigError(
            f"{who}: exec.interactiveMode is Always, but there is no terminal to ask"
            " on; use IfAvailable or Never"
        )
    has_folder = os.sep in asked.command
    return ExecPlugin(
        api_version=asked.api_version,
        command=str(folder / asked.command) if has_folder else asked.command,
        arguments=tuple(asked.args or ()),
        environment={variable.name: variable.value for variable in asked.env or ()},
        install_hint=asked.install_hint,
        cluster=_tell_cluster(base, cluster) if asked.provide_cluster_info else None,
    )


def _tell_cluster(base: Path, cluster: _Cluster) -> dict[str, object]:
    """Return what a plugin is told of the cluster, with the authority inline."""
    file, ca = cluster.certificate_authority, cluster.certificate_authority_data
    if file and not ca:
        text = _read_text(base / file, "certificate-authority")
        ca = base64.b64encode(text.encode()).decode()
    told: dict[str, object] = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": ca,
        "proxy-url": cluster.proxy_url,
        "config": next(
            (e.extension for e in cluster.extensions or () if e.name == _FOR_PLUGINS),
            None,
        ),
    }
    return {name: value for name, value in told.items() if value}


def _certificate(
    folder: Path, user: _User, who: str
) -> ClientCertificate | CertificateFiles | None:
    """Return the certificate of *user*; as files when both halves are files."""
    has_certificate = bool(user.client_certificate or user.client_certificate_data)
    has_key = bool(user.client_key or user.client_key_data)
    if not has_certificate and not has_key:
        return None
    if not has_certificate or not has_key:
        missing = "client-key" if has_certificate else "client-certificate"
        raise ConfigError(f"{who} has no {missing} to go with the other half")
    if not user.client_certificate_data and not user.client_key_data:
        return CertificateFiles(
            folder / user.client_certificate, folder / user.client_key
        )
    return ClientCertificate(
        _text(
            folder,
            user.client_certificate,
            user.client_certificate_data,
            "client-certificate",
        ),
        _text(folder, user.client_key, user.client_key_data, "client-key"),
    )


def _text(folder: Path, file: str, inline: str, field: str) -> str:
    if inline:
        return _decode(inline, f"{field}-data")
    return _read_text(folder / file, field)


def _read_text(path: Path, field: str) -> str:
    try:
        return path.read_text()
    except OSError as e:
        raise ConfigError(f"{field} {path}: {e.strerror}") from e


def _decode(inline: str, field: str) -> str:
    try:
        return base64.b64decode(inline, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as e:
        raise ConfigError(f"{field}: not base64 of PEM text: {e}") from e


def _from_service_account() -> Connection:
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token_file = SERVICE_ACCOUNT / "token"
    if not host or not token_file.exists():
        raise ConfigError(
            "no kubeconfig: give --kubeconfig, set KUBECONFIG, or run in a pod"
        )
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        token_file=token_file,
        ca_file=SERVICE_ACCOUNT / "ca.crt",
    )
