"""The contract of jarvis-mesh: events, subjects, channels, cursors and wire messages. No I/O."""

from jarvis_mesh.schema.channels import parse_channel
from jarvis_mesh.schema.clock import Clock, SystemClock
from jarvis_mesh.schema.codec import decode_body, encode_body
from jarvis_mesh.schema.cursor import Cursor, parse_cursor, parse_since
from jarvis_mesh.schema.errors import MeshError
from jarvis_mesh.schema.event import Event, Metadata, Priority, new_id, parse_event
from jarvis_mesh.schema.filters import Filter, Place
from jarvis_mesh.schema.subjects import subject_of
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES, Payload, TypeRegistry

__all__ = [
    "BUILT_IN_FAMILIES",
    "Clock",
    "Cursor",
    "Event",
    "Filter",
    "MeshError",
    "Metadata",
    "Payload",
    "Place",
    "Priority",
    "SystemClock",
    "TypeRegistry",
    "decode_body",
    "encode_body",
    "new_id",
    "parse_channel",
    "parse_cursor",
    "parse_event",
    "parse_since",
    "subject_of",
]
