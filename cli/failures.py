"""How a command fails: one line on stderr that says what to do, and exit code 1."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from jarvis_mesh.cli.printable import printable
from jarvis_mesh.schema.errors import MeshError, UnauthorizedError, UnavailableError

NATS_ADVICE: Final = "start `mesh up`, or name one by --nats"
"""What to do when NATS can't be reached."""
_TOKEN_ADVICE: Final = "`mesh token --user U` makes one; set MESH_TOKEN to it"  # noqa: S105
_PASSWORD: Final = re.compile(r"(?<=://)(?!user:password@host:)([^\s/@:]*):[^\s/@]+@")
"""All but the example that our own messages give."""
_TOKEN: Final = re.compile(
    r"""(?P<name>\baccess_token["']?\s*[=:]\s*["']?)[^\s&"',;]+"""
    r"""|(?P<scheme>\b[Bb]earer\s+)[^\s&"',;]{8,}"""
    r"|\beyJ[\w-]*(\.[\w-]*){1,4}"
)
"""What follows `access_token=` or `Bearer`, and what looks like a JWT (RFC 7519, section 3.1)."""


def without_secrets(text: str) -> str:
    """Return *text* with the password of every URL in it, and every token, replaced by `…`."""
    without = _PASSWORD.sub(r"\1:…@", text)
    return _TOKEN.sub(lambda match: f"{match['name'] or match['scheme'] or ''}…", without)


def mesh_error_in(error: BaseException) -> MeshError | None:
    """Return the first `MeshError` of what task groups made of it; `None` if there's another."""
    if isinstance(error, MeshError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [mesh_error_in(inner) for inner in error.exceptions]
        return None if None in found else found[0]
    return None


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Add what to do to the `UnavailableError` of a connection that can't be made within."""
    try:
        yield
    except UnavailableError as error:
        raise UnavailableError(f"{error.message}; {advice}") from None


@contextmanager
def advising_token(token: str | None) -> Iterator[None]:
    """Say what to do where the gateway doesn't take *token*, or wants one."""
    try:
        yield
    except UnauthorizedError as error:
        reason = "the gateway wants a token" if token is None else error.message
        raise UnauthorizedError(f"{reason}; {_TOKEN_ADVICE}") from None


def fail(error: BaseException) -> NoReturn:
    """End the command because of *error*. What isn't ours to expect is called a bug."""
    expected = mesh_error_in(error)
    if expected is not None:
        line = expected.message
    elif os.environ.get("MESH_DEBUG"):
        raise error
    else:
        line = f"a bug: {type(error).__name__}: {error}; MESH_DEBUG=1 shows where"
    print(f"mesh: {printable(without_secrets(' '.join(line.split())))}", file=sys.stderr)
    sys.exit(1)
