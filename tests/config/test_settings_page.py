"""docs/settings.md says what there is to set, and what it is if nobody does."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import pytest

from jarvis_mesh.config.environment import FILE_SUFFIX, NKEY_PREFIX, NOT_SETTINGS, PASSWORD_PREFIX
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.config.settings_sources import SECRETS, variable
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "settings.md").read_text()
ROWS: Final = re.findall(
    r"^\| `(MESH_\w+)` \| (?:`(\w+)`)? ?\| (?:`(.+?)`)? ?\|", PAGE, re.MULTILINE
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MESH_")]:
        monkeypatch.delenv(name)


def test_every_setting_has_a_row_with_its_variable_and_its_key() -> None:
    keys = {name: "" if name == "config" else name for name in Settings.model_fields}
    assert [(name, key) for name, key, _ in ROWS] == [
        (variable(name), key) for name, key in keys.items()
    ]


def test_the_defaults_are_those_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key, default in ROWS:
        if key and not default:
            assert not getattr(Settings(), key)
        elif default:
            monkeypatch.setenv(name, default)
            assert getattr(Settings(), key) == Settings.model_fields[key].default


def test_every_other_variable_is_explained() -> None:
    others = [
        *(*NOT_SETTINGS, PASSWORD_PREFIX, NKEY_PREFIX),
        *(variable(name) + FILE_SUFFIX for name in SECRETS),
    ]
    assert [name for name in others if f"`{name}" not in PAGE] == []


def test_the_example_can_be_used(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mesh.toml").write_text(example)
    settings = Settings.load(config=tmp_path / "mesh.toml")
    assert settings.families == (*BUILT_IN_FAMILIES, "deploy")
    assert settings.log_max_age == 30 * 86_400


def test_the_readme_leads_there() -> None:
    assert "(docs/settings.md)" in (ROOT / "README.md").read_text()
