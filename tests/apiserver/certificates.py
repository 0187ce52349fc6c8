"""
Certificates for a control plane that lives as long as a test: one authority, and keys.

What it is: a few runs of ``openssl``.
What it is not: an example of how to run an authority: its keys lie in a test's folder.
Who calls it: ``control_plane``.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "2"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """An authority in *folder*, which it fills with what it issues."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.own = self._pair("authority")
        _openssl(
            *("req", "-x509", "-subj", "/CN=tests", "-days", DAYS, *_NEW_KEY),
            *("-keyout", str(self.own.key), "-out", str(self.own.certificate)),
        )

    def issue(self, name: str, group: str = "", addresses: str = "") -> KeyPair:
        """
        Certify *name*, a member of *group*; a server at *addresses* if there are any.

        Shape: *addresses* as OpenSSL writes them: ``IP:127.0.0.1,DNS:localhost``.
        """
        pair = self._pair(name.replace(":", "-"))
        subject = f"/O={group}/CN={name}" if group else f"/CN={name}"
        request = pair.key.with_suffix(".csr")
        _openssl(
            *("req", "-new", "-subj", subject, *_NEW_KEY),
            *("-keyout", str(pair.key), "-out", str(request)),
        )
        extensions = pair.key.with_suffix(".ext")
        usage = "serverAuth" if addresses else "clientAuth"
        names = f"subjectAltName={addresses}\n" if addresses else ""
        extensions.write_text(f"extendedKeyUsage={usage}\n{names}")
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", DAYS),
            *("-CA", str(self.own.certificate), "-CAkey", str(self.own.key)),
            *("-CAcreateserial", "-extfile", str(extensions)),
            *("-out", str(pair.certificate)),
        )
        return pair

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.folder / f"{name}.pem", self.folder / f"{name}.key")


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30)
