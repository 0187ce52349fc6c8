"""Which proxy a server is asked through: the rules of Go programs, kubectl's too."""

import pytest

from outgate.errors import ConfigError
from outgate.source.proxies import choose_proxy, needs_proxy

SERVER = "https://api.example.com:6443"


@pytest.mark.parametrize(
    ("server", "environment", "proxy"),
    [
        (SERVER, {}, None),
        (SERVER, {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        (SERVER, {"https_proxy": "http://p:3128"}, "http://p:3128"),
        (SERVER, {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        (SERVER, {"HTTP_PROXY": "http://p:3128"}, None),
        ("http://api", {"HTTP_PROXY": "http://p:3128"}, "http://p:3128"),
        (SERVER, {"HTTPS_PROXY": "http://p", "NO_PROXY": "example.com"}, None),
        (SERVER, {"HTTPS_PROXY": "http://p", "no_proxy": "example.com"}, None),
    ],
)
def test_choose_proxy_reads_the_environment(
    server: str, environment: dict[str, str], proxy: str | None
) -> None:
    assert choose_proxy(server, environment) == proxy


def test_choose_proxy_refuses_what_it_cannot_speak() -> None:
    """The message holds no password."""
    with pytest.raises(ConfigError, match="HTTPS_PROXY: 'socks5://p:1080'") as caught:
        choose_proxy(SERVER, {"HTTPS_PROXY": "socks5://me:secret@p:1080"})

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("unless", "host", "port", "needed"),
    [
        ("", "api.example.com", 443, True),
        ("", "localhost", 443, False),
        ("", "127.0.0.1", 443, False),
        ("", "::1", 443, False),
        ("*", "api.example.com", 443, False),
        ("example.com", "api.example.com", 443, False),
        ("example.com", "example.com", 443, False),
        ("example.com", "myexample.com", 443, True),
        (".example.com", "api.example.com", 443, False),
        (".example.com", "example.com", 443, True),
        ("*.example.com", "api.example.com", 443, False),
        (" A.com , EXAMPLE.com ", "api.Example.com", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, False),
        ("10.0.0.0/8", "11.1.2.3", 443, True),
        ("fd00::/8", "fd00::1", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, False),
        ("10.1.2.3:6443", "10.1.2.3", 443, True),
        ("api.example.com:443", "api.example.com", 443, False),
        ("api.example.com:80", "api.example.com", 443, True),
        ("fd00::1", "fd00::1", 443, False),
        ("[fd00::1]:443", "fd00::1", 443, False),
        ("10.0.0.0/99", "10.1.2.3", 443, True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(
    unless: str, host: str, port: int, needed: bool
) -> None:
    assert needs_proxy(host, port, unless) == needed
