"""Logs for people, on stderr: no payloads (nobody logs them), no passwords and tokens (cut out
here), and no text of others that a terminal obeys or that makes a line of its own."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from jarvis_mesh.cli.failures import without_secrets
from jarvis_mesh.cli.printable import printable


def set_up_logs() -> None:
    """Send our logs, and the warnings of libraries, to stderr as readable lines."""
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,  # which worker it is
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
    ]
    render: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _make_printable,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The default shows the local variables: among them are URLs with passwords.
            exception_formatter=structlog.dev.plain_traceback,
        ),
        _cut_out_secrets,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=common, processors=render)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("jarvis_mesh").setLevel(logging.INFO)
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _make_printable(_logger: WrappedLogger, _method: str, said: EventDict) -> EventDict:
    """Before colours are added. Tracebacks keep their lines: they aren't there yet."""
    return {
        key: printable(value) if isinstance(value, str) else value for key, value in said.items()
    }


def _cut_out_secrets(_logger: WrappedLogger, _method: str, rendered: EventDict | str) -> str:
    return without_secrets(str(rendered))
