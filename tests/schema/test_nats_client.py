"""Nothing goes out in plain text where TLS was asked for.

tests/system/test_production_nats.py has the handshakes, with a real server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
import trustme

from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_client import SecureClient, explain_refusal
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials

PASSWORD = "hush"  # noqa: S105
INFO = b'INFO {"server_id":"x","version":"2.11.0","headers":true,"max_payload":1048576}\r\n'


@asynccontextmanager
async def plain_server(heard: bytearray) -> AsyncIterator[str]:
    """Something that speaks NATS without TLS, as who stands in between would."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        while data := await reader.read(4096):
            heard.extend(data)
            writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"user:{PASSWORD}@127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(("scheme", "wants_tls"), [("tls", False), ("nats", True)])
async def test_a_server_without_tls_is_told_nothing_where_tls_was_asked_for(
    scheme: str, wants_tls: bool, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca_file)
    heard, told = bytearray(), list[str]()

    async def tell(error: Exception) -> None:
        told.append(explain_refusal(error) or "")

    client = SecureClient(NatsCredentials(ca_file) if wants_tls else NO_CREDENTIALS)
    async with plain_server(heard) as address:
        with pytest.raises(nats.errors.Error):
            await client.connect(f"{scheme}://{address}", max_reconnect_attempts=1, error_cb=tell)
        await client.close()
    assert heard == b""
    assert any("speaks no TLS" in text for text in told)


async def test_where_it_was_not_asked_for_plain_text_is_spoken() -> None:
    heard = bytearray()
    client = SecureClient()
    async with plain_server(heard) as address:
        await client.connect(f"nats://{address}")
        await client.close()
    assert PASSWORD.encode() in heard


def test_files_that_cannot_be_read_any_more_leave_what_was_read_last(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    client = SecureClient(NatsCredentials(ca_file))
    with pytest.raises(SetupError, match="PEM"):
        _ = client.ssl_context
    trustme.CA().cert_pem.write_to_path(ca_file)
    first = client.ssl_context
    trustme.CA().cert_pem.write_to_path(ca_file)
    second = client.ssl_context
    assert first.get_ca_certs() != second.get_ca_certs()
    ca_file.unlink()
    assert client.ssl_context is second
