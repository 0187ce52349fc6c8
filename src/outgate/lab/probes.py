"""
Readiness probes: HTTP GET from inside the pod's own network.

What this is: one task per running container that has a ``readinessProbe.httpGet``;
it keeps ``ready`` current and wakes the pod's worker when that changes.
What this is not: liveness; a container that does not answer is not restarted.
"""

import asyncio
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from outgate.lab.inside import socket_inside
from outgate.lab.lifecycle import ObservedPod, Running
from outgate.lab.topology import in_url
from outgate.lab.workload import Container, HttpProbe, Workload

TIMEOUT_SECONDS = 2.0


async def answers(holder: int, host: str, probe: HttpProbe) -> bool:
    """Whether *probe* gets a status from 200 to 399 at *host*, asked from inside."""
    loop = asyncio.get_running_loop()
    name = in_url(ip_address(host))
    text = f"GET {probe.path} HTTP/1.0\r\nHost: {name}\r\n\r\n"
    try:
        with socket_inside(holder, host) as connection:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await loop.sock_connect(connection, (host, probe.port))
                await loop.sock_sendall(connection, text.encode())
                head = await loop.sock_recv(connection, 64)
    except OSError:
        return False
    words = head.split()
    return len(words) > 1 and words[1][:1] in (b"2", b"3")


class Probes:
    """The probes of one pod."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._ready: set[str] = set()

    def not_ready(self, containers: Iterable[Container]) -> frozenset[str]:
        """The containers that have a probe which did not succeed."""
        probed = {item.name for item in containers if item.probe is not None}
        return frozenset(probed - self._ready)

    def follow(self, workload: Workload, observed: ObservedPod, holder: int) -> None:
        """Probe what runs now, and nothing else; *holder* is the sandbox's pid."""
        wanted = {}
        host = "127.0.0.1" if workload.uses_host_network else ""
        for container in workload.containers:
            state = observed.containers.get(container.name)
            if container.probe is not None and isinstance(state, Running):
                address = container.probe.host or host or observed.addresses[0]
                wanted[container.name, state.attempt] = (container.probe, address)
        for key in self._tasks.keys() - wanted.keys():
            self._tasks.pop(key).cancel()
            self._ready.discard(key[0])
        for key in wanted.keys() - self._tasks.keys():
            probe, address = wanted[key]
            task = asyncio.create_task(self._watch(key[0], holder, address, probe))
            self._tasks[key] = task

    async def _watch(self, name: str, holder: int, host: str, probe: HttpProbe) -> None:
        while True:
            is_ready = await answers(holder, host, probe)
            if is_ready != (name in self._ready):
                self._ready ^= {name}
                self._wake()
            await asyncio.sleep(probe.period_seconds)

    def stop(self) -> None:
        """End every probe."""
        for task in self._tasks.values():
            task.cancel()
