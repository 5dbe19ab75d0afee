"""TLS and nkeys: what can't be right is refused at once, and no secret is shown."""

from __future__ import annotations

import pickle
import ssl
from pathlib import Path

import pytest
import trustme

from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import (
    NO_CREDENTIALS,
    NatsCredentials,
    new_nkey_seed,
    public_nkey,
)

PASSWORD = "hush"  # noqa: S105


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
