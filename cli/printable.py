"""Text of others, made safe to show: it can neither steer a terminal nor pose as a line of ours."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return *text* with everything that isn't printable written as an escape.

    That is what terminals obey (C0 and C1 controls, and with them every escape sequence), line
    ends, and what misleads readers: directions of writing, invisible characters.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
