"""Hypothesis strategies for what the protocol's values can be."""

from __future__ import annotations

from hypothesis import strategies as st

from jarvis_mesh.schema.errors import EventError
from jarvis_mesh.schema.event import Event, Metadata, MetadataWithUnknown, new_id
from jarvis_mesh.schema.filters import FREE, Filter
from jarvis_mesh.schema.json_value import JSON, MAX_INTEGER
from jarvis_mesh.schema.subjects import NONE, encode_token

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Any text that UTF-8 can write."""
NASTY = st.sampled_from(
    ["*", ">", "_", "**", "%", "%5F", "%2A", ".", "..", "a.b", "a.>", "&", "a&user:b", ":", "all"]
)


def _is_routing_value(text: str) -> bool:
    try:
        encode_token(text)
    except EventError:
        return False
    return True


ROUTING = (NASTY | TEXT | st.text("ab_%*.>&:", min_size=1, max_size=6)).filter(_is_routing_value)
"""What a source, an entity, a user or a session can be, above all what looks like more."""

JSON_VALUES: st.SearchStrategy[JSON] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
TYPE_TOKENS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True)
TYPES = st.lists(TYPE_TOKENS, min_size=2, max_size=3).map(":".join)
TIMES = st.integers(0, MAX_INTEGER)


def _unknown(known: tuple[str, ...]) -> st.SearchStrategy[dict[str, JSON]]:
    keys = (TEXT | st.just("unknown")).filter(lambda key: key not in known)
    return st.dictionaries(keys, JSON_VALUES, max_size=3)


def _metadata() -> st.SearchStrategy[Metadata]:
    fields = {
        "user": st.none() | ROUTING,
        "session": st.none() | ROUTING,
        "entity": st.none() | ROUTING,
        "priority": st.sampled_from([None, "low", "medium", "high"]),
        "traceparent": st.none() | TEXT,
        "base": st.none() | TEXT,
    }
    unknown = _unknown(Metadata.__struct_fields__).filter(bool)
    return st.builds(Metadata, **fields) | st.builds(MetadataWithUnknown, **fields, unknown=unknown)


def _fits(event: Event) -> bool:
    try:
        return bool(event.subject)
    except EventError:
        return False


EVENTS: st.SearchStrategy[Event] = st.builds(
    Event,
    id=st.integers(0, 2**48 - 1).map(new_id),
    type=TYPES,
    source=ROUTING,
    timestamp=TIMES,
    payload=JSON_VALUES,
    metadata=_metadata(),
    unknown=_unknown(("id", "type", "source", "timestamp", "payload", "metadata")),
).filter(_fits)

_FEW = st.sampled_from(["a", "b", NONE, "%2A"])
SUBJECTS = st.tuples(*[_FEW] * 7)
"""Seven tokens out of few, so that filters meet them often."""
FILTERS = st.tuples(*[_FEW | st.just(FREE)] * 7).map(Filter)
FILTER_LISTS = st.lists(FILTERS, max_size=5)
CHANNELS = FILTERS.map(str) | st.sampled_from(
    ["all", "shared", "user:a", "user:b", "user:*", "session:a&user:b", "event:a:**", "source:_"]
)
"""Channels that stand for such filters."""
