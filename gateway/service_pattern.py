"""Which methods of which services a token grants: `terminal.write`, `terminal.*`, `*.*`.

Source: docs/protocol.md, "Who may see what".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from jarvis_mesh.schema.errors import BadRequestError

_ANY: Final = "*"
_PATTERN: Final = re.compile(r"(\*|[A-Za-z0-9_-]{1,128})\.(\*|>|[A-Za-z0-9_-]{1,128})")


@dataclass(frozen=True, slots=True)
class ServicePattern:
    """A service and a method, each `*` for any."""

    service: str
    method: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the pattern that *text* is.

        Raises:
            BadRequestError: it is none.
        """
        if text == ">":
            return cls(_ANY, _ANY)
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise BadRequestError(f"{text[:60]!r} should be service.method, with * for any of them")
        return cls(match[1], _ANY if match[2] == ">" else match[2])

    def matches(self, service: str, method: str) -> bool:
        """Say whether it passes a method of a service."""
        return self.service in (_ANY, service) and self.method in (_ANY, method)
