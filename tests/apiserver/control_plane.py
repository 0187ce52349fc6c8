"""
A real control plane for tests: etcd and kube-apiserver on loopback, and their faults.

What it is: start, wait until ready, restart, empty, compact, stop.  Authorisation is by
RBAC, certificates are checked both ways.
What it is not: a cluster: no controllers run, so nobody makes service accounts' tokens,
empties deleted namespaces or confirms the deletion of pods.
Who calls it: ``run``, and tests that break theirs.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from apiserver.certificates import Authority, KeyPair
from apiserver.kubeconfig import write_kubeconfig

ADVERTISED = "192.0.2.1"
"""What the API server says of its own address; nobody listens there."""

READY_SECONDS = 60.0
STOP_SECONDS = 1.0
"""A server waits a minute for those who watch; then it is killed, as in a crash."""

SERVICE_NETWORKS = "10.96.0.0/16,fd00:10:96::/112"
OWN_NAMES = "IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"


@dataclass(slots=True)
class ControlPlane:
    """One etcd and one API server, in *folder*, from the programs in *programs*."""

    programs: Path
    folder: Path
    authority: Authority = field(init=False)
    admin: KeyPair = field(init=False)
    port: int = field(init=False)
    _etcd_ports: tuple[int, int] = field(init=False)
    _etcd: subprocess.Popen[bytes] | None = None
    _server: subprocess.Popen[bytes] | None = None
    _starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def __post_init__(self) -> None:
        self.authority = Authority(self.folder / "certificates")
        self.admin = self.authority.issue("admin", "system:masters")
        self.authority.issue("server", addresses=OWN_NAMES)
        self.authority.issue("accounts")
        self.port, *etcd = _free_ports(3)
        self._etcd_ports = (etcd[0], etcd[1])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def _data(self) -> Path:
        return self.folder / "etcd"

    @property
    def kubeconfig(self) -> Path:
        """Return the kubeconfig of one who may do everything."""
        pair = self.admin
        keys = {
            "client-certificate": str(pair.certificate),
            "client-key": str(pair.key),
        }
        return write_kubeconfig(
            self.folder / "admin.kubeconfig",
            {
                "server": self.url,
                "certificate-authority": str(self.authority.own.certificate),
            },
            keys,
        )

    def start(self) -> None:
        """Start both and return when the API server calls itself ready."""
        self.start_etcd()
        self.start_server()

    def stop(self) -> None:
        self.stop_server()
        self.stop_etcd()

    def restart_server(self) -> None:
        """Stop the API server and start it again at the same address."""
        self.stop_server()
        self.start_server()

    def empty(self) -> None:
        """Come back at the same address with an etcd that has lost everything."""
        self.stop()
        shutil.rmtree(self._data)
        self.start()

    def keep(self) -> None:
        """Keep a backup of etcd as it is now; the API server does not notice."""
        self.stop_etcd()
        backup = self.folder / "backup"
        shutil.rmtree(backup, ignore_errors=True)
        shutil.copytree(self._data, backup)
        self.start_etcd()

    def restore(self) -> None:
        """Come back at the same address with the etcd that was kept."""
        self.stop()
        shutil.rmtree(self._data)
        shutil.copytree(self.folder / "backup", self._data)
        self.start()

    def compact(self) -> None:
        """Make etcd forget every state but the last one."""
        revision = self._ask_etcd("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
        self._ask_etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    def start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._etcd_ports)
        self._etcd = self._start(
            "etcd",
            *("--name=tests", f"--data-dir={self._data}"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            *(f"--initial-cluster=tests={peer}", "--unsafe-no-fsync"),
            "--log-level=warn",
        )

    def stop_etcd(self) -> None:
        _end(self._etcd)
        self._etcd = None

    def start_server(self) -> None:
        """Start the API server and return when it calls itself ready."""
        keys = self.authority.folder
        self._server = self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_ports[0]}",
            *("--bind-address=127.0.0.1", f"--secure-port={self.port}"),
            f"--advertise-address={ADVERTISED}",
            f"--tls-cert-file={keys / 'server.pem'}",
            f"--tls-private-key-file={keys / 'server.key'}",
            f"--client-ca-file={self.authority.own.certificate}",
            *("--authorization-mode=RBAC", "--anonymous-auth=false"),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys / 'accounts.pem'}",
            f"--service-account-signing-key-file={keys / 'accounts.key'}",
            f"--service-cluster-ip-range={SERVICE_NETWORKS}",
            *("--allow-privileged=true", "--disable-admission-plugins=ServiceAccount"),
            *("--etcd-compaction-interval=0", "--profiling=false"),
        )
        self._wait_ready()

    def stop_server(self) -> None:
        _end(self._server)
        self._server = None

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        """Start *program*, which ends with us: with the thread that starts it."""
        command = ["setpriv", "--pdeathsig=KILL", str(self.programs / program), *words]
        with (self.folder / f"{program}.log").open("ab") as log:
            return self._starter.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ).result()

    def _wait_ready(self) -> None:
        context = ssl.create_default_context(cafile=self.authority.own.certificate)
        context.load_cert_chain(self.admin.certificate, self.admin.key)
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                urllib.request.urlopen(
                    f"{self.url}/readyz", timeout=5, context=context
                ).close()
                return
            except OSError as e:
                ended = self._server is None or self._server.poll() is not None
                if ended or time.monotonic() > end:
                    log = (self.folder / "kube-apiserver.log").read_text()[-3000:]
                    raise RuntimeError(
                        f"kube-apiserver is not ready: {e}\n{log}"
                    ) from e
            time.sleep(0.2)

    def _ask_etcd(self, path: str, body: object) -> dict[str, dict[str, str]]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._etcd_ports[0]}{path}", msgspec.json.encode(body)
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return msgspec.json.decode(answer.read(), type=dict)


def _free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody has; all are held until all are known."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
