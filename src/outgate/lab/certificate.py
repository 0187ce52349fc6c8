"""
The certificate of the lab's API: made once per lab, trusted by its kubeconfigs.

What this is: a self-signed certificate for the addresses that the API listens on,
made by ``openssl``.  kubectl sends a token over TLS only, and without a token any
user of the machine could run commands in pods.
What this is not: an authority; every lab has its own certificate and nothing else.
"""

import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path

from outgate.lab.errors import LabError

DAYS = 3650


def make_certificate(certificate: Path, key: Path, addresses: Iterable[str]) -> None:
    """Make the two files unless both are there; the key is readable by root alone."""
    if certificate.exists() and key.exists():
        return
    key.touch(mode=0o600)
    names = ",".join(f"IP:{address}" for address in addresses)
    command = [
        *("openssl", "req", "-x509", "-nodes", "-newkey", "ec"),
        *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", str(DAYS)),
        *("-subj", "/CN=outgate-lab", "-addext", f"subjectAltName={names}"),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError("openssl is missing; install the package openssl") from error
    if done.returncode != 0:
        raise LabError(f"openssl: {done.stderr.strip()}")


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What the API shows to its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
