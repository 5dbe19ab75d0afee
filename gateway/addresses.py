"""Who a client is, by address: the peer, or whom a proxy that is trusted says it speaks for.

A client can send any X-Forwarded-For; what a proxy adds comes after it, on the right. So it is read
from there, as far as the one who added each entry is trusted: the first who isn't is the client.

Source: https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/X-Forwarded-For
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from jarvis_mesh.config.networks import parse_network

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS: Final = 16
"""Entries that are looked at; a chain of more proxies isn't one."""
_SITE_BITS: Final = 64
"""Of an IPv6 address: what comes after them a client chooses itself (RFC 4291, section 2.5.4)."""


class Proxies:
    """The proxies that are trusted to say for whom they speak.

    Args:
        networks: Addresses or networks, those of the setting `trusted_proxies`.

    Raises:
        ValueError: one is neither.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(map(parse_network, networks))

    def client_address(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Return the address of the client, in its shortest form.

        Args:
            peer: Who is connected; what is no address (a Unix socket) comes back as it is.
            forwarded_for: The values of all X-Forwarded-For fields, in their order.
        """
        address = _parse(peer)
        if address is None:
            return peer
        entries = ",".join(forwarded_for).rsplit(",", MAX_HOPS) if forwarded_for else []
        for entry in reversed(entries):
            if not self._trusts(address):
                break
            said = _parse_entry(entry)
            if said is None:
                break  # by a proxy that is trusted, but not what it is trusted for: it answers
            address = said
        return str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def limit_key(address: str) -> str:
    """Return what *address* counts as where clients are limited: of IPv6 the network, a /64."""
    parsed = _parse(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address if parsed is None else str(parsed)
    return str(ipaddress.IPv6Network((parsed, _SITE_BITS), strict=False))


def _parse(text: str) -> Address | None:
    """Return the address; an IPv4 one that is written as IPv6 as what it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        return ipaddress.IPv6Address(int(address))  # without a zone, which is this machine's own
    return address


def _parse_entry(text: str) -> Address | None:
    """Return the address of one entry, which some proxies write with brackets or a port."""
    text = text.strip(" \t")
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        is_whole = bool(bracket) and (not port or (port[0] == ":" and _is_port(port[1:])))
        return _parse(host) if is_whole else None
    host, colon, port = text.partition(":")
    if colon and "." in host and _is_port(port):
        return _parse(host)
    return _parse(text)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5
