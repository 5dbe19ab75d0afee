"""Whom `mesh doctor` can be on NATS: the users whose URL or nkey it finds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from jarvis_mesh.cli.local import nats_credentials, nats_url, seeds_folder
from jarvis_mesh.config.environment import read_secret
from jarvis_mesh.config.nats_conf import ADMIN, GATEWAY, USERS
from jarvis_mesh.config.nats_url import check_nats_urls
from jarvis_mesh.config.settings import Settings
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import NO_CREDENTIALS, NatsCredentials

_VARIABLES: Final = ("MESH_NATS_URL", "MESH_NATS_ADMIN_URL")


@dataclass(frozen=True, slots=True)
class Place:
    """NATS as one of its users."""

    user: str
    url: str = field(repr=False)
    credentials: NatsCredentials = NO_CREDENTIALS


def find_places(given: Sequence[str]) -> list[Place]:
    """Return NATS as every user that is known here.

    Args:
        given: The flags `--nats`; else the environment counts, else what `mesh up` says.

    Raises:
        SetupError: nothing says where NATS is, or what does is wrong.
    """
    if given:
        return [_given(url) for url in given]
    if any(read_secret(os.environ, name) for name in _VARIABLES):
        return _from_settings(Settings.load())
    return [Place(user, nats_url(user)) for user in USERS]


def _given(url: str) -> Place:
    try:
        check_nats_urls(url)
    except ValueError as error:
        raise SetupError(f"--nats: {error}") from None
    user = _user_in(url) or GATEWAY
    return Place(user, url, nats_credentials(user, url))


def _from_settings(settings: Settings) -> list[Place]:
    url, admin_url = settings.nats_url.get_secret_value(), settings.nats_admin_url
    if settings.nats_nkey_seed is None and (folder := seeds_folder()):
        found = [user for user in USERS if (folder / f"{user}.nk").exists()]
        return [Place(user, url, nats_credentials(user, url)) for user in found]
    places = [Place(_user_in(url) or GATEWAY, url, settings.nats_credentials)]
    if admin_url is not None:
        admin = admin_url.get_secret_value()
        places.append(Place(_user_in(admin) or ADMIN, admin, settings.nats_admin_credentials))
    return places


def _user_in(url: str) -> str | None:
    """Return the user that a URL names; one with an nkey may name none."""
    return urlsplit(url.split(",")[0]).username
