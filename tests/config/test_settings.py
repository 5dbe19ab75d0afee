"""Where settings come from, and what is said of wrong ones."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jarvis_mesh.config.settings import Settings
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import NatsCredentials, new_nkey_seed
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MESH_")]:
        monkeypatch.delenv(name)


def test_flags_beat_the_environment_which_beats_the_file_which_beats_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mesh.toml"
    file.write_text('host = "::1"\nport = 1\nheartbeat = 1\nfamilies = ["agent", "deploy"]\n')
    monkeypatch.setenv("MESH_CONFIG", str(file))
    monkeypatch.setenv("MESH_HEARTBEAT", "2s")
    monkeypatch.setenv("MESH_PORT", "2")
    settings = Settings.load(port=3, host=None)
    assert (settings.port, settings.heartbeat, settings.host) == (3, 2.0, "::1")
    assert settings.families == ("agent", "deploy")
    assert settings.drain == 5.0


def test_the_flag_config_beats_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").write_text("port = 1")
    monkeypatch.setenv("MESH_CONFIG", str(tmp_path / "none.toml"))
    assert Settings.load(config=tmp_path / "a.toml").port == 1


def test_the_log_is_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_FAMILIES", " agent , deploy,agent")
    monkeypatch.setenv("MESH_LOG_MAX_AGE", "12h")
    monkeypatch.setenv("MESH_LOG_MAX_BYTES", "1GiB")
    monkeypatch.setenv("MESH_LOG_REPLICAS", "3")
    log = Settings.load().log
    assert log.families == ("agent", "deploy")
    assert (log.max_age, log.max_bytes, log.replicas) == (43_200, 2**30, 3)


def test_what_is_set_to_nothing_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_FAMILIES", "")
    monkeypatch.setenv("MESH_NATS_ADMIN_URL", "")
    settings = Settings.load()
    assert settings.families == BUILT_IN_FAMILIES
    assert settings.nats_admin_url is None


def test_a_secret_can_lie_in_a_file_and_shows_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text("nats://gateway:hush@h:4222\n")
    monkeypatch.setenv("MESH_NATS_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("MESH_NATS_ADMIN_URL", "nats://admin:hush@h:4222")
    settings = Settings.load()
    assert settings.nats_url.get_secret_value() == "nats://gateway:hush@h:4222"
    assert "hush" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_nats_is_secured_for_the_gateway_and_for_the_admin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed, admin_seed = new_nkey_seed(), new_nkey_seed()
    (tmp_path / "seed").write_text(f"{admin_seed}\n")
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.setenv(f"MESH_NATS_{name}", f"/{name}.pem")
    monkeypatch.setenv("MESH_NATS_NKEY_SEED", seed)
    monkeypatch.setenv("MESH_NATS_ADMIN_NKEY_SEED_FILE", str(tmp_path / "seed"))
    as_a_worker_gets_them = pickle.dumps(Settings.load())
    settings = pickle.loads(as_a_worker_gets_them)  # noqa: S301
    files = (Path("/CA.pem"), Path("/CERT.pem"), Path("/KEY.pem"))
    assert settings.nats_credentials == NatsCredentials(*files, nkey_seed=seed)
    assert settings.nats_admin_credentials == NatsCredentials(*files, nkey_seed=admin_seed)
    assert seed not in f"{settings!r} {settings.nats_credentials!r}"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("MESH_NATS_CERT", "cert.pem", "both MESH_NATS_CERT and MESH_NATS_KEY"),
        ("MESH_NATS_NKEY_SEED", "SUhush", "MESH_NATS_NKEY_SEED: the nkey seed isn't that of"),
        ("MESH_PORT", "70000", "MESH_PORT is '70000': it should be less than or equal to 65535"),
        ("MESH_PORT", "http", "MESH_PORT is 'http': it should be a valid integer"),
        ("MESH_FAMILIES", "agent,live", "'live' is reserved"),
        ("MESH_FAMILIES", "Agent", "is no family name"),
        ("MESH_LOG_MAX_AGE", "7x", "MESH_LOG_MAX_AGE is '7x': write seconds, or a number with ms"),
        ("MESH_LOG_MAX_AGE", "0", "greater than or equal to 1"),
        ("MESH_LOG_MAX_BYTES", "1KiB", "greater than or equal to 2097152"),
        ("MESH_ALLOWED_ORIGINS", "https://a.example/", "is no origin"),
        ("MESH_ALLOWED_HOSTS", "a.example:443", "without scheme, port or wildcard"),
        ("MESH_TRUSTED_PROXIES", "proxy.example", "'proxy.example' does not appear to be"),
        ("MESH_NATS_URL_FILE", "/nowhere", "MESH_NATS_URL_FILE: /nowhere can't be read"),
        ("MESH_CONFIG", "/nowhere.toml", "/nowhere.toml can't be read"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(
    name: str, value: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SetupError) as caught:
        Settings.load()
    assert complaint in caught.value.message
    assert "\n" not in caught.value.message


def test_a_wrong_flag_and_a_wrong_line_of_the_file_are_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "mesh.toml").write_text('port = "many"')
    with pytest.raises(SetupError, match="port in the configuration file"):
        Settings.load(config=tmp_path / "mesh.toml")
    with pytest.raises(SetupError, match="--log-max-age is '-1'"):
        Settings.load(log_max_age="-1")


def test_a_wrong_secret_is_complained_about_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "mesh.toml").write_text('nats_url = ["nats://gateway:hush@h"]')
    with pytest.raises(SetupError) as caught:
        Settings.load(config=tmp_path / "mesh.toml")
    assert "nats_url" in caught.value.message
    assert "hush" not in caught.value.message


@pytest.mark.parametrize("name", ["MESH_NATS_URL", "MESH_NATS_ADMIN_URL"])
def test_what_is_no_nats_url_is_named_by_where_it_was_said_and_not_shown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complaint() -> str:
        with pytest.raises(SetupError) as caught:
            Settings.load()
        assert "write nats://user:password@host:4222" in caught.value.message
        assert "hush" not in caught.value.message
        return caught.value.message

    monkeypatch.setenv(name, "gateway:hush@h")
    assert complaint().startswith(f"{name}: it is no NATS URL")
    monkeypatch.delenv(name)
    (tmp_path / "url").write_text("http://gateway:hush@h")
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "url"))
    assert complaint().startswith(f"{name}_FILE: it is no NATS URL")
    monkeypatch.delenv(f"{name}_FILE")
    (tmp_path / "mesh.toml").write_text(f'{name.removeprefix("MESH_").lower()} = "hush"')
    monkeypatch.setenv("MESH_CONFIG", str(tmp_path / "mesh.toml"))
    assert "in the configuration file" in complaint()


def test_an_unknown_name_in_the_file_is_refused_with_the_near_one(tmp_path: Path) -> None:
    (tmp_path / "mesh.toml").write_text("prot = 1")
    with pytest.raises(SetupError, match="prot is no setting; did you mean port"):
        Settings.load(config=tmp_path / "mesh.toml")


def test_an_unknown_variable_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_FAMILYS", "agent")
    monkeypatch.setenv("MESH_DATA_DIR", "known, though no setting")
    with capture_logs() as logs:
        Settings.load()
    assert [entry["event"] for entry in logs] == [
        "MESH_FAMILYS is no setting; did you mean MESH_FAMILIES?"
    ]
