"""
Where an API server is and who we are there, as a value.

What it is not: the reading of a kubeconfig (``kubeconfig`` does that) or the
speaking (``client`` does).
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate chain and its key, both as PEM text."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """
    An API server and the credentials to show it.

    *server* is a URL, a path prefix allowed.  *token_file* is read again for each
    request, because the tokens of service accounts are replaced while we run; it
    wins over *token*.  *ca_data* is PEM text; with neither *ca_file* nor *ca_data*
    the machine's own authorities count.  *server_name* replaces the host of the URL
    in the check of the server's certificate.
    """

    server: str
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    ca_file: Path | None = None
    ca_data: str | None = field(default=None, repr=False)
    client_certificate: ClientCertificate | None = None
    server_name: str | None = None
    insecure: bool = False
