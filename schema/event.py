"""The event: one fact, immutable.

The same keys in the same order in CBOR and in JSON, absent ones left out, unknown ones kept:
a program built on an older schema passes on what a newer one wrote.

Source: docs/protocol.md, "Events".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Set as AbstractSet
from typing import Final, Literal, TypeAlias

import msgspec

from jarvis_mesh.schema.errors import EventError
from jarvis_mesh.schema.json_value import JSON as JSON
from jarvis_mesh.schema.json_value import MAX_INTEGER, check_json
from jarvis_mesh.schema.subjects import subject_of

Priority: TypeAlias = Literal["low", "medium", "high"]

_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an event is filed under. Keys in the order in which they are written."""

    user: str | None = None
    """Whose event it is; an event without one belongs to nobody in particular."""
    session: str | None = None
    """The session of work that it is part of."""
    entity: str | None = None
    """What it is about: the agent's, terminal's or workflow's id, the model, the host."""
    priority: Priority | None = None
    traceparent: str | None = None
    """W3C Trace Context of the work that caused it."""
    base: str | None = None
    """Id of the event that this one builds on."""


class MetadataWithUnknown(Metadata, frozen=True, kw_only=True, omit_defaults=True):
    """Metadata with keys that this version of the schema doesn't know."""

    unknown: dict[str, JSON] = {}


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """UUIDv7 (RFC 9562): also what the log recognizes a repetition by."""
    type: str
    source: str
    """Which program says so: the name of its NATS user."""
    timestamp: int
    """Milliseconds since 1970 UTC, by the publisher's clock."""
    payload: JSON
    metadata: Metadata = Metadata()


class Event(_Envelope, frozen=True, kw_only=True):
    """One fact. `parse_event` and `check_event` are what makes sure of its form."""

    unknown: dict[str, JSON] = {}
    """Keys that this version of the schema doesn't know, kept."""

    @property
    def subject(self) -> str:
        """The one subject it is published on.

        Raises:
            EventError: a value can't be a subject token.
        """
        about = self.metadata
        return subject_of(
            self.type, self.source, entity=about.entity, user=about.user, session=about.session
        )

    def to_map(self) -> dict[str, JSON]:
        """Return the event as it is written, keys in order."""
        metadata: dict[str, JSON] = {
            key: value
            for key in _METADATA_KEYS
            if (value := getattr(self.metadata, key)) is not None
        }
        if isinstance(self.metadata, MetadataWithUnknown):
            metadata |= self.metadata.unknown
        return {
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "timestamp": self.timestamp,
            "payload": self.payload,
            "metadata": metadata,
            **self.unknown,
        }


_EVENT_KEYS: Final = dict.fromkeys(_Envelope.__struct_fields__).keys()
_METADATA_KEYS: Final = dict.fromkeys(Metadata.__struct_fields__).keys()
"""Sets that keep the order in which the keys are written."""
_NOTHING: Final[dict[str, JSON]] = {}


def new_id(time_ms: int) -> str:
    """Return a new UUIDv7 for an event made at *time_ms*.

    Source: RFC 9562, section 5.7.
    """
    bits = (
        (time_ms & (1 << 48) - 1) << 80
        | 0x7 << 76
        | secrets.randbits(12) << 64
        | 0b10 << 62
        | secrets.randbits(62)
    )
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check_id(event_id: str) -> None:
    """Raise `EventError` unless *event_id* is a UUIDv7 in lower case."""
    if not _UUID7.fullmatch(event_id):
        raise EventError(f"id: {event_id[:60]!r} is no UUIDv7 in lower case")


def parse_event(value: object) -> Event:
    """Return the event that a decoded map holds.

    Args:
        value: What `cbor2` or `msgspec.json` made of the bytes.

    Raises:
        EventError: a key is missing or has the wrong form; the message says which.
    """
    try:
        envelope = msgspec.convert(value, _Envelope)
    except msgspec.ValidationError as error:
        raise EventError(f"no event: {describe(error)}") from None
    assert isinstance(value, dict), "msgspec.convert took it as a map"  # noqa: S101
    event = Event(
        id=envelope.id,
        type=envelope.type,
        source=envelope.source,
        timestamp=envelope.timestamp,
        payload=envelope.payload,
        metadata=keep_unknown_metadata(value.get("metadata", _NOTHING), envelope.metadata),
        unknown=_unknown(value, _EVENT_KEYS),
    )
    check_event(event)
    return event


def check_event(event: Event) -> None:
    """Raise `EventError` unless every value of *event* is one that the schema allows.

    The type's own payload keys are the registry's business (`types.TypeRegistry`).
    """
    check_id(event.id)
    if not 0 <= event.timestamp <= MAX_INTEGER:
        raise EventError(f"timestamp: {event.timestamp} isn't milliseconds since 1970")
    check_json(event.payload, "payload")
    _check_metadata(event.metadata)
    if isinstance(event.metadata, MetadataWithUnknown):
        check_json(event.metadata.unknown, "metadata")
    if event.unknown:
        check_json(event.unknown, "event")
    event.subject  # noqa: B018 - raises when a value can't be a token


def _check_metadata(metadata: Metadata) -> None:
    # Whoever builds one in Python can put anything into it: msgspec checks what it decodes only.
    for key in _METADATA_KEYS:
        value = getattr(metadata, key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise EventError(f"metadata.{key}: {type(value).__name__} instead of text")
        if not value.isascii():
            check_json(value, f"metadata.{key}")


def describe(error: msgspec.ValidationError) -> str:
    """Return msgspec's complaint with the path first: `payload.progress: expected float`."""
    reason, at, path = str(error).partition(" - at `$")
    reason = (reason[:1].lower() + reason[1:]).replace("`", "")
    return f"{path.rstrip('`').lstrip('.')}: {reason}" if at and path != "`" else reason


def _unknown(value: dict[str, JSON], known: AbstractSet[str]) -> dict[str, JSON]:
    if value.keys() <= known:
        return {}
    return {key: item for key, item in value.items() if key not in known}


def keep_unknown_metadata(value: dict[str, JSON], metadata: Metadata) -> Metadata:
    """Return *metadata* with the keys of the map *value* that the schema doesn't know.

    Raises:
        EventError: a known key is null.
    """
    unknown = _unknown(value, _METADATA_KEYS)
    if None in value.values():
        _refuse_null(value)
    if not unknown:
        return metadata
    known = {key: getattr(metadata, key) for key in _METADATA_KEYS}
    return MetadataWithUnknown(**known, unknown=unknown)


def _refuse_null(metadata: dict[str, JSON]) -> None:
    """Raise `EventError` if a key of ours is null: what is absent is left out, in one way only."""
    for key in _METADATA_KEYS:
        if key in metadata and metadata[key] is None:
            raise EventError(f"metadata.{key}: null; leave the key out instead")
