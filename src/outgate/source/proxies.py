"""
Which proxy a URL is asked through, as Go programs read the environment.  Pure.

What it is: ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` as ``kubectl`` follows
them (golang.org/x/net/http/httpproxy), so that one environment serves both.

What it is not: the ``proxy-url`` of a kubeconfig, which wins over all of these.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from outgate.errors import ConfigError

SCHEMES = ("http", "https")
_PORTS = {"http": 80, "https": 443}


def choose_proxy(server: str, environment: Mapping[str, str]) -> str | None:
    """
    Return the URL of the proxy for *server*, None: ask it directly.

    Errors: ``ConfigError`` for a proxy that we cannot speak with.
    """
    url = urlsplit(server)
    host, port = url.hostname or "", url.port or _PORTS.get(url.scheme, 0)
    name = f"{url.scheme.upper()}_PROXY"
    chosen = environment.get(name) or environment.get(name.lower()) or ""
    unless = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    if not chosen or not needs_proxy(host, port, unless):
        return None
    return check_proxy(chosen if "://" in chosen else f"http://{chosen}", name)


def check_proxy(proxy: str, where: str) -> str:
    """Return *proxy* if we can speak with it; *where* it stands, for the message."""
    scheme, _, rest = proxy.partition("://")
    if scheme in SCHEMES and urlsplit(proxy).hostname:
        return proxy
    shown = f"{scheme}://{rest.rpartition('@')[2]}"
    raise ConfigError(
        f"{where}: {shown!r} is no proxy that can be used here; give the URL of an HTTP"
        " proxy (http://HOST:PORT), or add the API server to NO_PROXY"
    )


def needs_proxy(host: str, port: int, unless: str) -> bool:
    """
    Return whether *host* is asked through a proxy, with *unless* as ``NO_PROXY``.

    Shape: comma-separated; ``*``, an address, a network, ``example.com`` (also all
    below it), ``.example.com`` (only below it); all but networks with ``:PORT``.
    """
    host = host.lower().rstrip(".")
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    items = [item.strip().lower() for item in unless.split(",")]
    return not any(_covers(item, host, address, port) for item in items if item)


def _covers(
    item: str, host: str, address: IPv4Address | IPv6Address | None, port: int
) -> bool:
    if item == "*":
        return True
    if "/" in item:
        try:
            network = ip_network(item, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    item, wanted = _split_port(item)
    if wanted and wanted != str(port):
        return False
    if (named := _address(item)) is not None:
        return named == address
    if item.startswith("*."):
        item = item[1:]
    if item.startswith("."):
        return host.endswith(item)
    return host == item or host.endswith(f".{item}")


def _split_port(item: str) -> tuple[str, str]:
    """Return an item of ``NO_PROXY`` and its port; IPv6 has colons of its own."""
    if _address(item) is not None:
        return item, ""
    head, _, port = item.rpartition(":")
    return (head, port) if head and port.isdigit() else (item, "")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None
