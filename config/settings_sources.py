"""Where settings come from beside flags and environment, and how a wrong one is explained."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from jarvis_mesh.config.environment import FILE_SUFFIX, PREFIX, did_you_mean, read_secret
from jarvis_mesh.schema.errors import SetupError

NATS_URLS: Final = ("nats_url", "nats_admin_url")
SECRETS: Final = (*NATS_URLS, "nats_nkey_seed", "nats_admin_nkey_seed", "jwt_secret")
"""Settings that may lie in a file, and are never shown."""


class _Source(PydanticBaseSettingsSource):
    """A source that reads all its values in one go."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the base class wants it, `__call__` doesn't use it


class SecretFiles(_Source):
    """Secrets from the files that `MESH_…_FILE` name."""

    def __call__(self) -> dict[str, Any]:
        found = {name: read_secret(os.environ, variable(name)) for name in SECRETS}
        return {name: secret for name, secret in found.items() if secret is not None}


class ConfigFile(_Source):
    """The TOML file that flags or environment (the sources before this one) have named."""

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config")
        if path is None:
            return {}
        try:
            values = tomllib.loads(Path(path).read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SetupError(f"the configuration file {path} can't be read: {error}") from None
        fields = [name for name in self.settings_cls.model_fields if name != "config"]
        for name in values:
            if name not in fields:
                hint = did_you_mean(name, fields)
                raise SetupError(f"{path}: {name} is no setting{hint}")
        return values


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def variables(settings: type[BaseSettings]) -> list[str]:
    """Return all variables that *settings* may come from."""
    names = [variable(name) for name in settings.model_fields]
    return names + [variable(name) + FILE_SUFFIX for name in SECRETS]


def explain(error: ValidationError, flags: dict[str, Any]) -> str:
    """Return one line that names what is wrong, where it was said, and what would be right."""
    complaints = []
    for detail in error.errors():
        name = str(detail["loc"][0])
        if name in flags:
            place = f"--{name.replace('_', '-')}"
        elif os.environ.get(variable(name)):
            place = variable(name)
        elif name in SECRETS and os.environ.get(variable(name) + FILE_SUFFIX):
            place = variable(name) + FILE_SUFFIX
        else:
            place = f"{name} in the configuration file (or {variable(name)})"
        reason = detail["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        value = "" if name in SECRETS else f" is {detail['input']!r:.60}"
        complaints.append(f"{place}{value}: {reason}")
    return "; ".join(complaints)
