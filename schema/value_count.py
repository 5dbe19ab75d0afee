"""How many values a message or an event may hold.

Bytes alone bound little: 4 MiB of CBOR can be 4 million empty lists, which take 200 MB and a third
of a second to decode and as long again to check, and nothing else happens in a process meanwhile.
With this bound the worst event costs some 30 ms.

Source: docs/protocol.md, "Events"; RFC 8949, section 3.
"""

from __future__ import annotations

import re
from typing import Final

from jarvis_mesh.schema.errors import TooLargeError

MAX_VALUES: Final = 65_536
"""Keys of maps count, too."""
_STRINGS: Final = (2, 3)
"""Major types whose argument says how many bytes follow."""
_LONG: Final = range(24, 28)
"""What the low five bits of a head say when 1, 2, 4 or 8 bytes with its argument follow."""
_INDEFINITE: Final = 31
_TEXT: Final = r'"(?:[^"\\]++|\\.)*+"?'
"""A text in JSON. The end is optional: looking for one that isn't there again and again would
take for ever."""
_TEXTS: Final = re.compile(_TEXT, re.DOTALL)
_BYTES_TEXTS: Final = re.compile(_TEXT.encode(), re.DOTALL)


def _short_bytes(head: int) -> int:
    """Return how long an item is of which the first byte says it all; 0 if that doesn't."""
    major, argument = head >> 5, head & 31
    if argument == _INDEFINITE:
        return 1
    if argument >= _LONG.start:
        return 0
    return 1 + argument if major in _STRINGS else 1


_SHORT_BYTES: Final = tuple(_short_bytes(head) for head in range(256))


def check_cbor_count(data: bytes) -> None:
    """Return if *data*, one CBOR item or several, has few enough items; cheap for small ones.

    What is malformed is for the decoder to tell.

    Raises:
        TooLargeError: there are too many.
    """
    if len(data) <= MAX_VALUES:
        return
    at = count = 0
    while at < len(data):
        count += 1
        if count > MAX_VALUES:
            raise _too_many()
        at += _SHORT_BYTES[data[at]] or _long_bytes(data, at)


def _long_bytes(data: bytes, at: int) -> int:
    """Return how long the item at *at* is, but for what a list or a map holds."""
    major, size = data[at] >> 5, data[at] & 31
    if size not in _LONG:
        return len(data)  # malformed: nothing after it will be decoded
    width = 1 << (size - _LONG.start)
    argument = int.from_bytes(data[at + 1 : at + 1 + width], "big")
    return 1 + width + (argument if major in _STRINGS else 0)


def check_json_count(text: str | bytes) -> None:
    """Return if the JSON in *text* has few enough values; cheap for short ones.

    Raises:
        TooLargeError: there are too many.
    """
    if _count_marks(text) <= MAX_VALUES:
        return
    bare = _TEXTS.sub("0", text) if isinstance(text, str) else _BYTES_TEXTS.sub(b"0", text)
    if _count_marks(bare) > MAX_VALUES:
        raise _too_many()


def _count_marks(text: str | bytes) -> int:
    """Return how many values there are if no text has such marks in it, or more if one has.

    Each value but the first has a comma or an opening before it, each key a colon after it.
    """
    if len(text) <= MAX_VALUES:
        return len(text)
    if isinstance(text, str):
        return 1 + sum(map(text.count, ",:[{")) - text.count("[]") - text.count("{}")
    marks = (b",", b":", b"[", b"{")
    return 1 + sum(map(text.count, marks)) - text.count(b"[]") - text.count(b"{}")


def _too_many() -> TooLargeError:
    return TooLargeError(f"over {MAX_VALUES:,} values: send them as text, or in several events")
