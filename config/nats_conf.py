"""nats.conf, written from the families: who may publish and subscribe to what.

The `nats.conf` at the project's top is `render(BUILT_IN_FAMILIES)`, and a test keeps it so;
with other families `mesh up` writes its own. What production differs in is in
nats_production.py.

Every publish permission is rooted in a family: `agent.*.*.terminal-service.*.*.*`, since
`*.*.*.terminal-service.*.*.*` would allow `live.…` and `mesh.…` too.

Source: docs/protocol.md, "Who may see what".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Final

from jarvis_mesh.config import revoked
from jarvis_mesh.config.log import STREAM
from jarvis_mesh.schema.subjects import LIVE_PREFIX, TICK_FAMILY

SERVICES: Final = {
    "agent-service": "agent",
    "terminal-service": "terminal",
    "system-monitor": "system",
    "workflow-engine": "workflow",
    "model-orchestrator": "model",
}
"""The service that each publisher's user serves, on `svc.<service>.*`."""
SOURCES: Final = tuple(SERVICES)
"""The publishers' NATS users; each speaks only under its own name."""
GATEWAY: Final = "gateway"
CLIENT_SOURCE: Final = "client"
"""The source of whatever a gateway publishes for its clients."""
ADMIN: Final = "admin"
USERS: Final = (ADMIN, GATEWAY, *SOURCES)

_DISCOVERY: Final = ("PING", "INFO", "STATS")
"""What NATS asks services about themselves: of all, of one name, of one instance (ADR-32)."""
_ONE_ANSWER: Final = 'allow_responses: { max: 1, expires: "60s" }'
"""A service answers each request once, wherever the request's reply subject says."""

_ADMIN_PUBLISHES: Final = ("$JS.API.>", f"{revoked.SUBJECT_PREFIX}>", "$SRV.>")

_HEAD: Final = """\
# The NATS server of jarvis-mesh on one machine: what `mesh up` starts.
# Written by `python -m jarvis_mesh.config`; change that, not this.
#
# Every password comes from the environment and is a word: letters, digits and "-", a letter
# first, since NATS would read 12345 or true as a number or a truth value.

listen: "127.0.0.1:4222"
max_payload: 1MB

# A gateway that is slow for a moment must not slow publishers down; what it then misses it
# reads from the log.
no_fast_producer_stall: true

jetstream: {
  store_dir: $MESH_NATS_STORE_DIR
  # The log's own limit decides. By default it's 3/4 of what is free when the server starts,
  # and a log that fills half of the disk is then refused at the next start.
  max_file_store: 1PB
}

"""


def password_variable(user: str) -> str:
    """Return the environment variable that holds the password of a NATS user."""
    return f"MESH_NATS_PASSWORD_{user.replace('-', '_').upper()}"


def conf_path() -> Path:
    """Return where the packaged nats.conf lies."""
    return Path(str(files("jarvis_mesh.config").joinpath("nats.conf")))


def render(families: Iterable[str]) -> str:
    """Return the text of nats.conf for a log with these families."""

    def login(user: str) -> str:
        return f"user: {user}, password: ${password_variable(user)}"

    families = tuple(families)
    events = ["svc.>", *(f"{family}.>" for family in families)]
    admin = _user(
        "Makes the streams; here on one machine it may also publish anything.",
        login(ADMIN),
        publish=[*_ADMIN_PUBLISHES, *events],
        subscribe=[">"],
    )
    return _HEAD + authorization(families, login, admin)


def authorization(families: tuple[str, ...], login: Callable[[str], str], admin: str = "") -> str:
    """Return the block with all users and what they may do.

    Args:
        login: Returns how a user of that name proves it, in NATS's words.
        admin: The entry of `admin`; one that publishes no events when empty.
    """
    users = [
        admin
        or _user(
            "Makes the streams: the log, and the bucket of revoked tokens.",
            login(ADMIN),
            publish=[*_ADMIN_PUBLISHES],
            subscribe=["_INBOX.>"],
        ),
        _gateway(families, login(GATEWAY)),
        *(_publisher(source, families, login(source)) for source in SOURCES),
    ]
    return "authorization: {\n  users: [\n" + "\n".join(users) + "  ]\n}\n"


def _gateway(families: tuple[str, ...], login: str) -> str:
    return _user(
        "Reads the log, the live feed and what is revoked; ticks; publishes what clients say.",
        login,
        publish=[
            *(f"$JS.API.STREAM.INFO.{stream}" for stream in (STREAM, revoked.STREAM)),
            *(f"$JS.API.DIRECT.GET.{stream}" for stream in (STREAM, revoked.STREAM)),
            f"{TICK_FAMILY}.tick._.{CLIENT_SOURCE}.*._._",
            "svc.>",
            *_own(CLIENT_SOURCE, families),
        ],
        subscribe=[
            f"{LIVE_PREFIX}>",
            f"_INBOX.{GATEWAY}.>",
            f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{STREAM}",
        ],
    )


def _publisher(source: str, families: tuple[str, ...], login: str) -> str:
    return _user(
        "",
        login,
        publish=_own(source, families),
        subscribe=[f"_INBOX.{source}.>", *_requests(SERVICES[source])],
        more=_ONE_ANSWER,
    )


def _requests(service: str) -> list[str]:
    """Return what a service hears: its requests, and NATS's questions about it."""
    return [
        f"svc.{service}.*",
        *(f"$SRV.{verb}{of}" for verb in _DISCOVERY for of in ("", f".{service}", f".{service}.*")),
    ]


def _own(source: str, families: Iterable[str]) -> list[str]:
    return [f"{family}.*.*.{source}.*.*.*" for family in families]


def _user(
    comment: str, login: str, *, publish: list[str], subscribe: list[str], more: str = ""
) -> str:
    return (
        (f"    # {comment}\n" if comment else "")
        + f"    {{\n      {login}\n"
        + "      permissions: {\n"
        + f"        publish: [\n{_lines(publish)}        ]\n"
        + f"        subscribe: [\n{_lines(subscribe)}        ]\n"
        + (f"        {more}\n" if more else "")
        + "      }\n    }\n"
    )


def _lines(subjects: list[str]) -> str:
    return "".join(f'          "{subject}"\n' for subject in subjects)
