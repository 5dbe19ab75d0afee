"""Events as lines of text for a terminal, which can't be fooled by what is in them.

Whoever publishes chooses the text in an event, control sequences included: what isn't
printable is shown escaped, so no event can move the cursor, set a title or hide a line.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Final

import msgspec
from rich.text import Text

from jarvis_mesh.cli.printable import printable
from jarvis_mesh.schema.event import Event
from jarvis_mesh.schema.json_value import JSON

MAX_VALUE_CHARS: Final = 80
MAX_SUMMARY_CHARS: Final = 200
_STYLES: Final = {
    "agent": "cyan",
    "terminal": "green",
    "system": "blue",
    "workflow": "magenta",
    "model": "yellow",
}
# JSON itself escapes what is below U+0020. The rest of what terminals obey, or readers
# are misled by: DEL and C1 controls, line separators, directions of writing, invisible ones.
_OBEYED: Final = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def event_line(event: Event) -> Text:
    """Return one line: local time, type, who said it about what, what it says."""
    style = _STYLES.get(event.type.partition(":")[0], "")
    failed = event.type.endswith((":failed", ":error"))
    about = event.metadata.entity
    return Text.assemble(
        (_local_time(event.timestamp), "dim"),
        " ",
        (f"{printable(event.type):<20}", f"bold {'red' if failed else style}".strip()),
        " ",
        printable(event.source if about is None else f"{event.source}/{about}"),
        "  ",
        _summary(event),
    )


def json_line(event: Event, cursor: str) -> str:
    """Return `{"cursor":…,"event":{…}}` as one line that is safe to show."""
    line = msgspec.json.encode({"cursor": cursor, "event": event.to_map()}).decode()
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def _local_time(timestamp: int) -> str:
    try:
        time = datetime.fromtimestamp(timestamp / 1000).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(timestamp)  # a publisher's clock can be anywhere
    is_today = time.date() == datetime.now(time.tzinfo).date()
    text = time.strftime("%H:%M:%S.%f" if is_today else "%Y-%m-%d %H:%M:%S.%f")
    return text[:-3]


def _summary(event: Event) -> str:
    """Return the payload as `key=value`, shortened, without what the line says already."""
    if not isinstance(event.payload, dict):
        return _value(event.payload)
    pairs = []
    chars = 0
    for key, value in event.payload.items():
        if value == event.metadata.entity:
            continue
        pairs.append(f"{printable(_shorten(key))}={_value(value)}")
        chars += len(pairs[-1]) + 1
        if chars > MAX_SUMMARY_CHARS:
            pairs.append("…")
            break
    return " ".join(pairs)


def _value(value: JSON) -> str:
    if isinstance(value, str):
        # Cut first: a terminal's output can be a megabyte.
        value = value if len(value) <= MAX_VALUE_CHARS else f"{value[:MAX_VALUE_CHARS]}…"
        return printable(json.dumps(value, ensure_ascii=False))
    return _shorten(printable(msgspec.json.encode(value).decode()))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"
