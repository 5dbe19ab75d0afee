"""nats.conf, written from the families: who may publish and subscribe to what.

The `nats.conf` at the project's top is `render(BUILT_IN_FAMILIES)`, and a test keeps it so;
with other families `mesh up` writes its own.

Every publish permission is rooted in a family: `agent.*.*.terminal-service.*.*.*`, since
`*.*.*.terminal-service.*.*.*` would allow `live.…` and `mesh.…` too.

Source: docs/protocol.md, "Who may see what".
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Final

from jarvis_mesh.config.log import STREAM
from jarvis_mesh.schema.subjects import LIVE_PREFIX, TICK_FAMILY

SOURCES: Final = (
    "agent-service",
    "terminal-service",
    "system-monitor",
    "workflow-engine",
    "model-orchestrator",
)
"""The publishers' NATS users; each speaks only under its own name."""
GATEWAY: Final = "gateway"
CLIENT_SOURCE: Final = "client"
"""The source of whatever a gateway publishes for its clients."""
ADMIN: Final = "admin"
USERS: Final = (ADMIN, GATEWAY, *SOURCES)

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

authorization: {
  users: [
"""


def password_variable(user: str) -> str:
    """Return the environment variable that holds the password of a NATS user."""
    return f"MESH_NATS_PASSWORD_{user.replace('-', '_').upper()}"


def conf_path() -> Path:
    """Return where the packaged nats.conf lies."""
    return Path(str(files("jarvis_mesh.config").joinpath("nats.conf")))


def render(families: Iterable[str]) -> str:
    """Return the text of nats.conf for a log with these families."""
    families = tuple(families)
    users = [
        _user(
            "Makes the stream; here on one machine it may also publish anything.",
            ADMIN,
            publish=["$JS.API.>", "svc.>", *(f"{family}.>" for family in families)],
            subscribe=[">"],
        ),
        _user(
            "Reads the log and the live feed, ticks, and publishes what clients say.",
            GATEWAY,
            publish=[
                f"$JS.API.STREAM.INFO.{STREAM}",
                f"$JS.API.DIRECT.GET.{STREAM}",
                f"{TICK_FAMILY}.tick._.{CLIENT_SOURCE}.*._._",
                "svc.>",
                *_own(CLIENT_SOURCE, families),
            ],
            subscribe=[
                f"{LIVE_PREFIX}>",
                f"_INBOX.{GATEWAY}.>",
                f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{STREAM}",
            ],
        ),
        *(
            _user("", source, publish=_own(source, families), subscribe=[f"_INBOX.{source}.>"])
            for source in SOURCES
        ),
    ]
    return _HEAD + "\n".join(users) + "  ]\n}\n"


def _own(source: str, families: Iterable[str]) -> list[str]:
    return [f"{family}.*.*.{source}.*.*.*" for family in families]


def _user(comment: str, name: str, *, publish: list[str], subscribe: list[str]) -> str:
    return (
        (f"    # {comment}\n" if comment else "")
        + f"    {{\n      user: {name}, password: ${password_variable(name)}\n"
        + "      permissions: {\n"
        + f"        publish: [\n{_lines(publish)}        ]\n"
        + f"        subscribe: [\n{_lines(subscribe)}        ]\n"
        + "      }\n    }\n"
    )


def _lines(subjects: list[str]) -> str:
    return "".join(f'          "{subject}"\n' for subject in subjects)
