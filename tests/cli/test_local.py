"""Where commands find NATS and the gateway of their machine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from jarvis_mesh.cli.local import (
    DEFAULT_GATEWAY,
    data_dir_path,
    gateway_url,
    nats_credentials,
    nats_url,
    remove_up_file,
    write_up_file,
)
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials, new_nkey_seed


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MESH_NATS_URL", "MESH_NATS_URL_FILE", "MESH_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MESH_DATA_DIR", str(tmp_path))
    return tmp_path


def test_data_dir_is_the_flag_the_variable_or_where_xdg_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert data_dir_path("/flag") == Path("/flag")
    assert data_dir_path() == tmp_path
    with pytest.raises(SetupError, match="--data-dir is empty"):
        data_dir_path("")
    monkeypatch.delenv("MESH_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert data_dir_path() == Path("/xdg/jarvis-mesh")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert data_dir_path() == Path.home() / ".local/share/jarvis-mesh"


def test_urls_come_from_the_flag_the_variable_or_up_json(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_up_file(data_dir, "http://here:1", {"admin": "nats://admin:a@here:2"})
    assert stat.S_IMODE((data_dir / "up.json").stat().st_mode) == 0o600
    assert nats_url("admin") == "nats://admin:a@here:2"
    assert gateway_url() == "http://here:1"
    monkeypatch.setenv("MESH_NATS_URL", "nats://there")
    monkeypatch.setenv("MESH_URL", "http://there")
    assert (nats_url("admin"), gateway_url()) == ("nats://there", "http://there")
    assert (nats_url("admin", "nats://flag"), gateway_url("http://f")) == (
        "nats://flag",
        "http://f",
    )


def test_the_nats_url_can_lie_in_a_file(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data_dir / "url").write_text("nats://from-file\n")
    monkeypatch.setenv("MESH_NATS_URL_FILE", str(data_dir / "url"))
    assert nats_url("admin") == "nats://from-file"


def test_what_secures_nats_comes_with_a_url_of_ones_own_alone(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = new_nkey_seed()
    monkeypatch.setenv("MESH_NATS_CA", "ca.pem")
    (data_dir / "seed").write_text(seed)
    monkeypatch.setenv("MESH_NATS_NKEY_SEED_FILE", str(data_dir / "seed"))
    assert nats_credentials("gateway") == NO_CREDENTIALS  # that of up.json
    own = NatsCredentials("ca.pem", nkey_seed=seed)
    assert nats_credentials("gateway", "tls://h") == own
    assert nats_credentials("gateway", "tls://u:p@h") == NatsCredentials("ca.pem")
    monkeypatch.setenv("MESH_NATS_URL", "tls://h")
    assert nats_credentials("gateway") == own
    monkeypatch.setenv("MESH_NATS_CERT", "cert.pem")
    with pytest.raises(SetupError, match="MESH_NATS_KEY"):
        nats_credentials("gateway")


def test_a_folder_of_seeds_has_one_for_each_user(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = new_nkey_seed()
    (data_dir / "agent-service.nk").write_text(f"{seed}\n")
    monkeypatch.setenv("MESH_NATS_SEEDS", str(data_dir))
    monkeypatch.setenv("MESH_NATS_URL", "tls://h")
    assert nats_credentials("agent-service") == NatsCredentials(nkey_seed=seed)
    with pytest.raises(SetupError, match=r"MESH_NATS_SEEDS: .*gateway\.nk can't be read"):
        nats_credentials("gateway")


def test_what_is_no_nats_url_is_named_by_where_it_was_said_and_not_shown(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SetupError, match=r"^--nats: .* write nats://user:password@") as caught:
        nats_url("admin", "http://admin:hush@h")
    assert "hush" not in caught.value.message
    (data_dir / "url").write_text("hush")
    monkeypatch.setenv("MESH_NATS_URL_FILE", str(data_dir / "url"))
    with pytest.raises(SetupError, match=r"^MESH_NATS_URL_FILE: it is no NATS URL"):
        nats_url("admin")
    monkeypatch.delenv("MESH_NATS_URL_FILE")
    monkeypatch.setenv("MESH_NATS_URL", "bogus")
    with pytest.raises(SetupError, match=r"^MESH_NATS_URL: it is no NATS URL") as caught:
        nats_url("admin")
    assert "bogus" not in caught.value.message


def test_without_anything_the_gateway_is_the_default_and_nats_an_error(data_dir: Path) -> None:
    remove_up_file(data_dir)
    assert gateway_url() == DEFAULT_GATEWAY
    with pytest.raises(SetupError, match="start `mesh up`"):
        nats_url("admin")


def test_a_user_that_up_json_lacks_is_named(data_dir: Path) -> None:
    write_up_file(data_dir, "http://here:1", {})
    with pytest.raises(SetupError, match="no NATS user 'admin'"):
        nats_url("admin")


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_damaged_up_json_is_an_error(data_dir: Path, content: str) -> None:
    (data_dir / "up.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(SetupError, match=r"up\.json"):
        gateway_url()
