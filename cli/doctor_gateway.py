"""What `mesh doctor` finds out about a gateway: whom it answers, and where it listens."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
from typing import Final
from urllib.parse import SplitResult, urlsplit

import psutil

from jarvis_mesh.cli.doctor_findings import Finding
from jarvis_mesh.schema.errors import SetupError

_WITHIN: Final = 5.0
_REFUSED: Final = 403
_OK: Final = 200
_NO_TOKEN: Final = 401
_FOREIGN: Final = "mesh-doctor.example"
_FOREIGN_ORIGIN: Final = f"https://{_FOREIGN}"
_READING: Final = "/v1/events?channel=all&limit=1"


async def examine_gateway(url: str) -> list[Finding]:
    """Return what is found out by asking the gateway at *url*.

    Raises:
        SetupError: *url* is none.
    """
    return await asyncio.to_thread(_examine, url)


def _examine(url: str) -> list[Finding]:
    place = urlsplit(url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise SetupError(f"--url: {url!r} is no gateway: write http://127.0.0.1:3200")
    try:
        return [
            _answers(place, "/healthz", "its log says why it isn't"),
            _answers(place, "/readyz", "NATS or the log is away, or it stops: its log says why"),
            _refuses(place, "a page of another site", {"Origin": _FOREIGN_ORIGIN}),
            _refuses(place, "a foreign Host", {"Host": _FOREIGN}),
            *_examine_authentication(place),
        ]
    except (OSError, http.client.HTTPException) as error:
        return [Finding(f"the gateway at {url} answers", f"{error}; start it, or name it by --url")]


def _answers(place: SplitResult, path: str, advice: str) -> Finding:
    status = _status(place, path, {})
    claim = f"the gateway answers {path}"
    return Finding(claim) if status == _OK else Finding(claim, f"{status}; {advice}")


def _refuses(place: SplitResult, whom: str, headers: dict[str, str]) -> Finding:
    status = _status(place, "/", headers)
    claim = f"the gateway refuses {whom}"
    advice = (
        "pages that you open could use it: it is started with --insecure, or a proxy in front "
        "of it changes the headers"
    )
    return Finding(claim) if status == _REFUSED else Finding(claim, f"{status}; {advice}")


def _examine_authentication(place: SplitResult) -> list[Finding]:
    status = _status(place, _READING, {"Accept": "application/json"})
    if status == _NO_TOKEN:
        return [Finding("authentication is on")]
    if status != _OK:
        return [Finding("authentication is on or off", f"reading answers {status}", unknown=True)]
    claim = "authentication is off, and the gateway listens on this machine alone"
    if reached := _reachable(place):
        advice = "anybody there reads and publishes everything: set up authentication"
        return [Finding(claim, f"{', '.join(reached)} reach it; {advice}, or use --host 127.0.0.1")]
    return [Finding(claim)]


def _reachable(place: SplitResult) -> list[str]:
    """Return the addresses beyond loopback by which the gateway can be reached."""
    assert place.hostname is not None  # noqa: S101 - checked before
    port = place.port or (443 if place.scheme == "https" else 80)
    addresses = {info[4][0] for info in socket.getaddrinfo(place.hostname, port)}
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        return [place.hostname]
    return [address for address in _own_addresses() if _connects(address, port)]


def _own_addresses() -> list[str]:
    found = []
    for interface in psutil.net_if_addrs().values():
        for address in interface:
            if address.family in (socket.AF_INET, socket.AF_INET6):
                parsed = ipaddress.ip_address(address.address.partition("%")[0])
                if not parsed.is_loopback and not parsed.is_link_local:
                    found.append(str(parsed))
    return found


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_WITHIN).close()
    except OSError:
        return False
    return True


def _status(place: SplitResult, path: str, headers: dict[str, str]) -> int:
    assert place.hostname is not None  # noqa: S101 - checked before
    if place.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            place.hostname, place.port, timeout=_WITHIN, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=_WITHIN)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()
