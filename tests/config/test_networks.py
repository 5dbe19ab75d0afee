"""What an operator writes down is taken as one thing only, or refused."""

from __future__ import annotations

import pytest

from jarvis_mesh.config.networks import check_host, check_origin, parse_network


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the setting says the rest
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("FD00::/8", "fd00::/8"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ],
)
def test_networks(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Mesh.Example", "mesh.example"),
        ("mesh_gateway", "mesh_gateway"),
        ("*", "*"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_hosts(text: str, host: str) -> None:
    assert check_host(text) == host


@pytest.mark.parametrize(
    "text", ["", "mesh.example:443", "https://mesh.example", "*.example", ".example", "a b", "a/b"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="without scheme, port or wildcard"):
        check_host(text)


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "https://a.example/",
        "a.example",
        "https://",
        "https://u@a.example",
        "ws://a",
        "https://a.example:x",
        "https://[::1",
        "*",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        check_origin(text)


@pytest.mark.parametrize("text", ["https://a.example", "http://[::1]:3000", "http://localhost:80"])
def test_origins(text: str) -> None:
    assert check_origin(text) == text
