"""
What we show an API server, kept fresh: tokens, certificates, whom we trust.

What it is: the one place that knows that credentials change while we run.  Files are
looked at before each request and read again when they are others (a service account's
token is replaced each hour, certificates each few weeks); a plugin runs again when what
it said expires, and everything is read anew when the server says 401.

What it is not: HTTP.  ``client`` asks here before each request.
"""

import asyncio
import ssl
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from outgate.errors import ConfigError, SourceError
from outgate.source.connection import CertificateFiles, ClientCertificate, Connection
from outgate.source.plugin import PluginCredential, run_plugin

SHORTEST_SECONDS = 10.0
"""A plugin is not asked more often, whatever it says about when its answer expires."""

EARLY_SECONDS = 5.0
"""How long before it expires a credential is replaced."""

_Stamp = tuple[tuple[int, int, int], ...]


class Credentials:
    """The credentials of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._token = connection.token
        self._token_stamp: _Stamp | None = None
        self._tls: ssl.SSLContext | None = None
        self._tls_stamp: tuple[_Stamp, ClientCertificate | None] | None = None
        self._plugin: PluginCredential | None = None
        self._plugin_asked_at = 0.0
        self._plugin_expires_at: float | None = None
        self._lock = asyncio.Lock()

    def check(self) -> None:
        """Raise a ``ConfigError`` if certificates cannot be read."""
        if self._is_tls:
            self._tls = tls_context(self._connection, None)

    async def token(self) -> str | None:
        """
        Return the token to send, None: none.

        Errors: ``SourceError`` when its file cannot be read or the plugin fails.
        """
        await self._refresh_plugin()
        if self._plugin is not None and self._plugin.token:
            return self._plugin.token
        self._read_token_file()
        return self._token

    async def tls(self) -> ssl.SSLContext | None:
        """Return how to speak TLS, another object after each change; None: do not."""
        if not self._is_tls:
            return None
        await self._refresh_plugin()
        own = None if self._plugin is None else self._plugin.certificate
        stamp = _stamp(self._tls_files()), own
        if self._tls is None or stamp != self._tls_stamp:
            try:
                self._tls = tls_context(self._connection, own)
                self._tls_stamp = stamp
            except ConfigError as e:
                # Two files are never replaced at once: the old ones may still do.
                if self._tls is None:
                    raise SourceError(str(e)) from e
        return self._tls

    async def renew(self, refused: str | None) -> bool:
        """
        Look for a better token after the server refused one; return whether there is.

        Several requests may be refused at once; the first of them renews.
        """
        self._token_stamp = None
        plugin = self._connection.plugin
        if plugin is not None and self._plugin is not None:
            is_young = time.monotonic() - self._plugin_asked_at < SHORTEST_SECONDS
            if self._plugin.token == refused and not is_young:
                self._plugin = None
        return await self.token() != refused

    @property
    def _is_tls(self) -> bool:
        return self._connection.server.startswith("https:")

    def _tls_files(self) -> tuple[Path, ...]:
        own, ca = self._connection.client_certificate, self._connection.ca_file
        files = [own.certificate, own.key] if isinstance(own, CertificateFiles) else []
        return (*files, *([ca] if ca is not None else []))

    def _read_token_file(self) -> None:
        path = self._connection.token_file
        if path is None:
            return
        stamp = _stamp((path,))
        if stamp and stamp == self._token_stamp:
            return
        try:
            self._token = path.read_text().strip()
        except OSError as e:
            raise SourceError(f"read token file {path}: {e.strerror}") from e
        except UnicodeDecodeError as e:
            raise SourceError(f"read token file {path}: it holds no text") from e
        self._token_stamp = stamp

    async def _refresh_plugin(self) -> None:
        plugin = self._connection.plugin
        if plugin is None:
            return
        async with self._lock:
            expires_at = self._plugin_expires_at
            is_old = expires_at is not None and time.monotonic() >= expires_at
            if self._plugin is not None and not is_old:
                return
            found = await run_plugin(plugin)
            self._plugin, self._plugin_asked_at = found, time.monotonic()
            self._plugin_expires_at = None
            if found.expires is not None:
                # The only use of the wall clock; what follows counts from here.
                left = (found.expires - datetime.now(UTC)).total_seconds()
                wait = max(left - EARLY_SECONDS, SHORTEST_SECONDS)
                self._plugin_expires_at = self._plugin_asked_at + wait


def tls_context(
    connection: Connection, from_plugin: ClientCertificate | None
) -> ssl.SSLContext:
    """
    Return how to check the server's certificate and which one we show.

    Errors: ``ConfigError`` when a certificate or a key is none.
    """
    own = from_plugin or connection.client_certificate
    try:
        context = ssl.create_default_context(
            cafile=connection.ca_file, cadata=connection.ca_data
        )
        match own:
            case ClientCertificate():
                _load_certificate(context, own)
            case CertificateFiles(certificate, key):
                context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as e:
        raise ConfigError(f"certificates for {connection.server}: {e}") from e
    if connection.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_certificate(context: ssl.SSLContext, own: ClientCertificate) -> None:
    """Show *own* to the server; OpenSSL reads it from a file only, so make one."""
    with tempfile.NamedTemporaryFile("w", prefix="outgate-") as file:
        file.write(f"{own.certificate}\n{own.key}")
        file.flush()
        context.load_cert_chain(file.name)


def _stamp(files: tuple[Path, ...]) -> _Stamp:
    """Return what is another when a file was replaced or written to."""
    found = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
