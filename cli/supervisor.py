"""Keeping the embedded nats-server alive, and its log small."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NoReturn

import structlog

from jarvis_mesh.cli.embedded import NatsServer
from jarvis_mesh.schema.clock import Clock
from jarvis_mesh.schema.errors import SetupError

GIVE_UP_AFTER: Final = 5
"""Deaths in a row, none of them after a steady life."""
STEADY: Final = 30.0
"""Seconds after which a server counts as running well."""
BACKOFF: Final = 0.1
"""Seconds before the first restart; doubled for each further one."""
MAX_LOG_BYTES: Final = 8 * 1024**2
CHECK_LOG_EVERY: Final = 60.0

log = structlog.get_logger(__name__)


async def keep_running(server: NatsServer, clock: Clock) -> NoReturn:
    """Start *server*, which runs already, again whenever it ends; until cancelled.

    Raises:
        SetupError: it keeps ending; the message quotes its last words and says where more is.
    """
    deaths = 0
    up_since = clock.monotonic()
    while True:
        code = await server.wait()
        deaths = deaths + 1 if clock.monotonic() - up_since < STEADY else 1
        if deaths >= GIVE_UP_AFTER:
            raise SetupError(
                f"nats-server ended {deaths} times in a row (code {code}){server.last_words()}"
            )
        log.warning("nats-server ended; starting it again", code=code, deaths=deaths)
        await clock.sleep(BACKOFF * 2 ** (deaths - 1))
        try:
            await server.start()
            log.info("nats-server runs again")
        except SetupError as error:
            log.warning("nats-server didn't start", error=error.message)
        up_since = clock.monotonic()


async def keep_log_small(path: Path, clock: Clock) -> NoReturn:
    """Cut the server's log back now and every minute, until cancelled.

    It can say a line for every refused publish, which is as many as publishers like.
    """
    while True:
        try:
            cut_back(path)
        except OSError as error:
            log.warning("the log of nats-server can't be cut back", error=str(error))
        await clock.sleep(CHECK_LOG_EVERY)


def cut_back(path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
    """Move what *path* holds to `….1` if it is more than *max_bytes*. A writer may go on.

    Raises:
        OSError: it can't be copied or cut.
    """
    if not path.exists() or path.stat().st_size <= max_bytes:
        return
    # Copied and truncated, not renamed: the server keeps its file open.
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    with path.open("r+b") as file:
        file.truncate(0)
