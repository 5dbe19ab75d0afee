"""TLS and nkeys: what can't be right is refused at once, and nothing goes out in plain text."""

from __future__ import annotations

import asyncio
import pickle
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
import trustme

from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import (
    NO_CREDENTIALS,
    NatsCredentials,
    SecureClient,
    explain_refusal,
    new_nkey_seed,
    public_nkey,
)

PASSWORD = "hush"  # noqa: S105
INFO = b'INFO {"server_id":"x","version":"2.11.0","headers":true,"max_payload":1048576}\r\n'


def test_a_seed_is_a_user_s_and_shows_nowhere() -> None:
    seed = new_nkey_seed()
    assert seed.startswith("SU")
    assert public_nkey(f" {seed}\n").startswith("U")
    assert seed not in repr(NatsCredentials(nkey_seed=seed))


@pytest.mark.parametrize("change", ["mistyped", "short", "account", "empty"])
def test_what_is_no_seed_of_a_user_is_refused_without_showing_it(change: str) -> None:
    seed = new_nkey_seed()
    wrong = {
        "mistyped": seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:],
        "short": seed[:-8],
        "account": "SAAKPYUKMUJEZB7OTAG6NHQ5YPLKX3LNUWEBAXTVPFAG4FJFPXMJG7TFPY",
        "empty": "",
    }[change]
    with pytest.raises(SetupError, match="nkey seed") as refusal:
        NatsCredentials(nkey_seed=wrong)
    assert not wrong or wrong not in refusal.value.message


def test_half_a_certificate_is_refused() -> None:
    with pytest.raises(SetupError, match="two files"):
        NatsCredentials(cert_file="a.pem")
    with pytest.raises(SetupError, match="two files"):
        NatsCredentials(key_file="a.key")


def test_without_anything_the_url_alone_counts() -> None:
    assert NO_CREDENTIALS.options("nats://u:p@h") == {}
    assert not NO_CREDENTIALS.wants_tls


def test_a_password_and_an_nkey_are_one_too_many() -> None:
    credentials = NatsCredentials(nkey_seed=new_nkey_seed())
    assert set(credentials.options("nats://h,nats://user@h")) == {"nkeys_seed_str"}
    with pytest.raises(SetupError, match="keep one") as refusal:
        credentials.options("nats://h,nats://u:hush@h")
    assert PASSWORD not in refusal.value.message


def test_certificates_are_verified_and_files_that_are_none_are_named(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("client")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    own = NatsCredentials(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    context = own.tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    for wrong in (
        NatsCredentials(tmp_path / "key.pem"),
        NatsCredentials(tmp_path / "none.pem"),
        NatsCredentials(None, tmp_path / "key.pem", tmp_path / "cert.pem"),
    ):
        with pytest.raises(SetupError, match="PEM"):
            wrong.tls_context()


def test_they_can_be_handed_to_another_process() -> None:
    credentials = NatsCredentials(Path("ca.pem"), nkey_seed=new_nkey_seed())
    assert pickle.loads(pickle.dumps(credentials)) == credentials  # noqa: S301


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
