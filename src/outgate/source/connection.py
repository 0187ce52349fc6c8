"""
Where an API server is and who we are there, as a value.

What it is not: the reading of a kubeconfig (``kubeconfig`` does that), the keeping of
credentials that change (``credentials``), or the speaking (``client``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate chain and its key, both as PEM text."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The same in two PEM files, which others may replace while we run."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """
    A program that prints credentials (client.authentication.k8s.io).

    *environment* is added to ours; *install_hint* is for users who lack the program;
    *cluster* is what it is told about the API server, None: nothing.
    """

    api_version: str
    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    install_hint: str = ""
    cluster: Mapping[str, object] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """
    An API server and the credentials to show it.

    *server* is a URL, a path prefix allowed.  *token_file* is read again when it
    changes, because the tokens of service accounts are replaced while we run; it wins
    over *token*.  *ca_data* is PEM text; with neither *ca_file* nor *ca_data* the
    machine's own authorities count.  *server_name* replaces the host of the URL in the
    check of the server's certificate.  *proxy* is a URL that wins over the proxies of
    the environment.
    """

    server: str
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    ca_file: Path | None = None
    ca_data: str | None = field(default=None, repr=False)
    client_certificate: ClientCertificate | CertificateFiles | None = None
    plugin: ExecPlugin | None = None
    server_name: str | None = None
    insecure: bool = False
    proxy: str | None = None
