"""Small programs that stories run in pods; each takes the server's name."""

HOLD_CONNECTIONS = """
import socket, sys
name, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family, kind, _, _, peer = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)[0]
held = []
for port in range(first, last):
    connection = socket.socket(family, kind)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.bind(("", port))
    connection.settimeout(20)
    connection.connect(peer)
    held.append(connection)
print("all connected", file=sys.stderr, flush=True)
sys.stdin.readline()
for connection in held:
    connection.sendall(b"GET /tuple HTTP/1.1\\r\\nHost: echo\\r\\n\\r\\n")
for connection in held:
    answer = b""
    while b"\\r\\n\\r\\n" not in answer or not answer.endswith(b"\\n"):
        answer += connection.recv(4096)
    print(answer.decode().split()[-1])
"""
"""Opens a connection from each port, waits for a line, then asks on all of them."""

ASK_UDP = """
import socket, sys
name, port = sys.argv[1], int(sys.argv[2])
family, kind, _, _, peer = socket.getaddrinfo(name, 7, type=socket.SOCK_DGRAM)[0]
asker = socket.socket(family, kind)
asker.bind(("", port))
asker.settimeout(5)
asker.sendto(b"?", peer)
print(asker.recv(100).decode().strip())
"""
"""Asks once, from the port given."""

ASK_CLOSED_PORT = """
import socket, sys
family, kind, _, _, peer = socket.getaddrinfo(
    sys.argv[1], 9, type=socket.SOCK_DGRAM
)[0]
asker = socket.socket(family, kind)
asker.settimeout(5)
asker.connect(peer)
asker.send(b"?")
try:
    asker.recv(100)
except OSError as error:
    print(type(error).__name__)
"""
"""Nobody listens there: the server's ICMP error ends the wait."""

HOPS = """
import socket, struct, sys, time
family, kind, _, _, peer = socket.getaddrinfo(
    sys.argv[1], 33434, type=socket.SOCK_DGRAM
)[0]
IP_RECVERR, IPV6_RECVERR = 11, 25
level, limit, errors, place, size = (
    (socket.IPPROTO_IP, socket.IP_TTL, IP_RECVERR, 4, 4)
    if family == socket.AF_INET
    else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, IPV6_RECVERR, 8, 16)
)
for hops in (1, 2):
    asker = socket.socket(family, kind)
    asker.setsockopt(level, errors, 1)
    asker.setsockopt(level, limit, hops)
    asker.sendto(b"?", peer)
    deadline = time.monotonic() + 5
    while True:
        try:
            _, extra, _, _ = asker.recvmsg(100, 512, socket.MSG_ERRQUEUE)
            break
        except BlockingIOError:
            assert time.monotonic() < deadline, hops
            time.sleep(0.02)
    offender = extra[0][2][16:]
    print(socket.inet_ntop(family, offender[place : place + size]))
"""
"""Who answers one hop away, and two: a traceroute by UDP."""

UPLOAD = """
import hashlib, http.client, random, sys
body = random.Random(1).randbytes(1 << 26)
connection = http.client.HTTPConnection(sys.argv[1], timeout=50)
connection.request("POST", "/sha256", body)
answer = connection.getresponse().read().decode().strip()
print(answer == hashlib.sha256(body).hexdigest())
"""

SEGMENT_SIZE = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 80), 5)
print(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""

BIG_DATAGRAM = """
import socket, sys
family, kind, _, _, peer = socket.getaddrinfo(
    sys.argv[1], 7, type=socket.SOCK_DGRAM
)[0]
IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU = 10, 14, 23, 24
level, discover, mtu, headers = (
    (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU, 28)
    if family == socket.AF_INET
    else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU, 48)
)
asker = socket.socket(family, kind)
asker.setsockopt(level, discover, int(sys.argv[2]))
asker.settimeout(2)
asker.connect(peer)
for attempt in range(3):
    try:
        asker.send(bytes(1500 - headers))
        print(asker.recv(100).decode().rpartition(":")[0].strip("[]"))
        break
    except TimeoutError:
        continue
    except OSError as error:
        print(error.errno, asker.getsockopt(level, mtu))
        break
"""
"""Sends 1500 bytes of IP; prints who the server saw, or error and path MTU."""

LISTEN = """
import socket
server = socket.create_server(("::", 8000), family=socket.AF_INET6, dualstack_ipv6=True)
print("up", flush=True)
print(server.accept()[1][0].removeprefix("::ffff:"))
"""
"""Waits for one connection at port 8000; prints who made it."""
