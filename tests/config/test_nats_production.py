"""What is written for a NATS in production: no secret but in seeds/, no list twice."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jarvis_mesh.config.nats_conf import SOURCES, USERS, render
from jarvis_mesh.config.nats_production import (
    public_nkey_variable,
    render_server,
    render_users,
    write_production,
)
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import public_nkey
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES

ROOT = Path(__file__).parents[2]
SEED = re.compile(r"SU[A-Z2-7]{56}")


def seed_of(directory: Path, user: str) -> str:
    return (directory / "seeds" / f"{user}.nk").read_text().strip()


def test_the_checked_in_files_are_what_is_written_for_the_built_in_families() -> None:
    folder = ROOT / "config" / "nats"
    assert (folder / "nats-server.conf").read_text() == render_server()
    assert (folder / "users.conf").read_text() == render_users(BUILT_IN_FAMILIES)


def test_the_users_are_those_of_one_machine_but_admin_who_publishes_no_events() -> None:
    def permissions(text: str) -> str:
        return re.sub(r"(nkey|user): .*", "LOGIN", text[text.index("# Reads the log") :])

    production = render_users(BUILT_IN_FAMILIES)
    assert permissions(production) == permissions(render(BUILT_IN_FAMILIES))
    assert re.findall(r"nkey: \$(\w+)", production) == [public_nkey_variable(u) for u in USERS]
    admin = production[: production.index("# Reads the log")]
    assert "agent." not in admin
    assert "svc." not in admin


def test_each_user_has_an_nkey_whose_seed_its_owner_alone_can_read(tmp_path: Path) -> None:
    seeds = write_production(tmp_path / "nats", BUILT_IN_FAMILIES)
    assert [seed.name for seed in seeds] == [f"{user}.nk" for user in USERS]
    users = (tmp_path / "nats" / "users.conf").read_text()
    for user, path in zip(USERS, seeds, strict=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert f"nkey: {public_nkey(path.read_text())} # {user}\n" in users
    for path in (tmp_path / "nats").rglob("*"):
        assert path.is_dir() or path in seeds or not SEED.search(path.read_text())


def test_written_again_keys_and_what_an_operator_changed_stay(tmp_path: Path) -> None:
    write_production(tmp_path, BUILT_IN_FAMILIES)
    (tmp_path / "nats-server.conf").write_text("# mine")
    before = json.loads((tmp_path / "logins.json").read_text())
    (tmp_path / "seeds" / "gateway.nk").unlink()  # taken to where it is used
    assert write_production(tmp_path, ("agent", "deploy")) == []
    assert json.loads((tmp_path / "logins.json").read_text()) == before
    assert (tmp_path / "nats-server.conf").read_text() == "# mine"
    users = (tmp_path / "users.conf").read_text()
    assert all(f'"deploy.*.*.{source}.*.*.*"' in users for source in (*SOURCES, "client"))


def test_one_user_s_nkey_can_be_renewed(tmp_path: Path) -> None:
    write_production(tmp_path, BUILT_IN_FAMILIES)
    before = {user: seed_of(tmp_path, user) for user in USERS}
    [renewed] = write_production(tmp_path, BUILT_IN_FAMILIES, ["gateway"])
    assert renewed.name == "gateway.nk"
    after = {user: seed_of(tmp_path, user) for user in USERS}
    assert [user for user in USERS if before[user] != after[user]] == ["gateway"]
    assert public_nkey(after["gateway"]) in (tmp_path / "users.conf").read_text()
    with pytest.raises(SetupError, match="no NATS user 'nobody'"):
        write_production(tmp_path, BUILT_IN_FAMILIES, ["nobody"])


@pytest.mark.parametrize("content", ["{", "[]", '{"admin": "hush"}', '{"admin": 1}'])
def test_damaged_logins_are_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    (tmp_path / "logins.json").write_text(content)
    with pytest.raises(SetupError, match=r"logins\.json is damaged") as refusal:
        write_production(tmp_path, BUILT_IN_FAMILIES)
    assert "hush" not in refusal.value.message


def test_where_it_cannot_write_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="can't be written"):
        write_production(tmp_path / "file", BUILT_IN_FAMILIES)


def test_the_command_writes_it_and_prints_the_seeds_files_not_the_seeds(tmp_path: Path) -> None:
    module = (sys.executable, "-m", "jarvis_mesh.config")
    made = subprocess.run(
        [*module, "production", str(tmp_path / "nats"), "--families", "agent,deploy"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert made.stdout.splitlines() == [str(tmp_path / f"nats/seeds/{u}.nk") for u in USERS]
    wrong = subprocess.run(
        [*module, "production", str(tmp_path), "--families", "live"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("mesh: ")
