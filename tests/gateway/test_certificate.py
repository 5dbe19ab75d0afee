"""Certificates that can't be used are refused by name; renewed ones are taken without a restart."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.gateway.certificate import LOOK_EVERY, Certificate, open_certificate
from jarvis_mesh.schema.errors import SetupError
from tests.support.certificates import Certificates
from tests.support.clock import ManualClock

ENCRYPTED = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
OLD_ENCRYPTED = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n"
    "-----END RSA PRIVATE KEY-----\n"
)


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def shown(context: ssl.SSLContext, client: ssl.SSLContext) -> bytes | None:
    """Return the certificate that a client gets by *context*, without a socket."""
    ours = (ssl.MemoryBIO(), ssl.MemoryBIO())
    server = context.wrap_bio(*ours, server_side=True)
    asking = client.wrap_bio(ours[1], ours[0], server_hostname="localhost")
    for side in (asking, server, asking, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return asking.getpeercert(binary_form=True)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda files: files.cert.unlink(), "MESH_TLS_CERT: .*cert.pem can't be read: No such"),
        (lambda files: files.key.unlink(), "MESH_TLS_KEY: .*key.pem can't be read: No such"),
        (lambda files: files.cert.write_text(""), "MESH_TLS_CERT: .* holds no certificate in PEM"),
        (lambda files: files.cert.write_bytes(b"\x30\x82\xff"), "holds no certificate in PEM"),
        (lambda files: files.key.write_text("x"), "MESH_TLS_KEY: .* holds no private key in PEM"),
        (lambda files: files.key.write_text(ENCRYPTED), "is encrypted: decrypt it"),
        (lambda files: files.key.write_text(OLD_ENCRYPTED), "is encrypted: decrypt it"),
        (
            lambda files: files.cert.write_text(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
            ),
            "can't be used for TLS",
        ),
        (
            lambda files: files.key.write_bytes(
                files.authority.issue_cert("other").private_key_pem.bytes()
            ),
            "the key in .*key.pem isn't that of the certificate in .*cert.pem",
        ),
    ],
)
def test_what_cant_be_used_is_said(
    files: Certificates, spoil: Callable[[Certificates], None], complaint: str
) -> None:
    spoil(files)
    with pytest.raises(SetupError, match=complaint):
        Certificate(files.cert, files.key)


def test_a_folder_is_no_file(files: Certificates, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="can't be read: Is a directory"):
        Certificate(tmp_path, files.key)


def test_both_or_neither(files: Certificates) -> None:
    assert open_certificate(Settings()) is None
    with pytest.raises(SetupError, match="MESH_TLS_CERT needs MESH_TLS_KEY beside it"):
        open_certificate(Settings(tls_cert=files.cert))
    with pytest.raises(SetupError, match="MESH_TLS_KEY needs MESH_TLS_CERT beside it"):
        open_certificate(Settings(tls_key=files.key))


def test_old_versions_and_weak_ciphers_are_refused(files: Certificates) -> None:
    context = Certificate(files.cert, files.key).context
    old = files.client()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("AES128-SHA:ECDHE+AES+SHA:@SECLEVEL=0")  # no forward secrecy; no AEAD
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        shown(context, old)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(files: Certificates) -> None:
    certificate, clock = Certificate(files.cert, files.key), ManualClock()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(certificate.watch(clock))
        first = certificate.context
        await clock.advance(LOOK_EVERY)
        assert certificate.context is first
        second = files.renew()
        await clock.advance(LOOK_EVERY)
        assert shown(certificate.context, files.client()) == second
        files.key.write_text("broken")
        with capture_logs() as logs:
            await clock.advance(3 * LOOK_EVERY)
        assert [line["log_level"] for line in logs] == ["warning"]  # once
        assert shown(certificate.context, files.client()) == second
        files.key.unlink()
        await clock.advance(LOOK_EVERY)
        third = files.renew()
        await clock.advance(LOOK_EVERY)
        assert shown(certificate.context, files.client()) == third
        watching.cancel()
