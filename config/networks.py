"""Hosts, origins and networks as an operator writes them down."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, TypeAlias
from urllib.parse import urlsplit

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ANY_HOST: Final = "*"
_MAPPED_BITS: Final = 96
"""Of an IPv6 address that stands for one of IPv4."""
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


def check_origin(text: str) -> str:
    """Return *text* if it is the origin of a web page.

    Raises:
        ValueError: it isn't; the message says how one is written.
    """
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" == text
        is_one = is_one and bool(parts.hostname) and parts.port != 0 and "@" not in text
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError(f"{text!r} is no origin: write https://app.example, no path")
    return text


def check_host(text: str) -> str:
    """Return *text*, in lower case, if it is the name or address of a host, or stands for any.

    Raises:
        ValueError: it isn't; the message says how one is written.
    """
    if text == ANY_HOST or _NAME.fullmatch(text):
        return text.lower()
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError(
            f"{text!r} is no host: write mesh.example, without scheme, port or wildcard"
        ) from None


def parse_network(text: str) -> Network:
    """Return the network that *text* names; an address is one of its own.

    Raises:
        ValueError: it is neither address nor network, or an address within a network.
    """
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network
