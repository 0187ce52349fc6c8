"""
Sockets inside the network namespaces of nodes and pods.

What this is: a socket belongs to the namespace of the thread that makes it, for
good; so a short thread makes it there, and the control plane uses it from outside.
What this is not: a way to run programs there; ``exec`` and ``shim`` do that.
"""

import socket
import threading
from ipaddress import ip_address

from outgate.lab.syscalls import Namespace, enter


def socket_inside(holder: int, address: str) -> socket.socket:
    """
    A TCP socket in the network namespace that pid *holder* holds; OSError.

    It is of the family of *address*, which it is going to be bound or connected to.
    """
    is_ipv4 = ip_address(address).version == 4
    family = socket.AF_INET if is_ipv4 else socket.AF_INET6
    made: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            enter(holder, Namespace.NETWORK)
            made.append(socket.socket(family))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    made[0].setblocking(False)
    return made[0]
