"""Who may see what, decided from plain values alone: the oracle of the matrix test.

It is written from docs/protocol.md, on purpose without the schema: a condition says which of an
event's seven values are what, as people write them; encoding, filters and wildcards aren't in it.
Channels are made together with what they mean, and nothing is ever parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

PLACES: Final = ("family", "name", "detail", "source", "entity", "user", "session")
USERS: Final = (
    *("alice", "bob", "ALICE", "al", "alice.", "a.b", "a%2Eb", "*", ">", "_", "%5F", "%2A"),
    *("alice&user:bob", "user:bob", "é", "e\u0301", "all", "shared", "alice bob"),
)
ENTITIES: Final = ("e1", "e2", "*", "_", "alice", "x.y", "e1&user:alice", "%")
SESSIONS: Final = ("s1", "s2", ">", "alice", "s1.s2")
SOURCES: Final = ("agent-service", "tests", "*", "client")
TYPES: Final = (
    *("agent:created", "agent:updated", "agent:task:started", "agent:task:failed"),
    *("terminal:output", "model:usage", "workflow:step:started"),
)

Value = str | None
"""Of one place; `None` where the event has none."""
Values = tuple[Value, ...]
"""All seven of an event."""
Condition = dict[int, Value]
"""Which places are what; all that aren't named may be anything."""


@dataclass(frozen=True)
class Channel:
    """A channel as it is written, and what it means."""

    text: str
    condition: Condition


def values_of(event_type: str, source: str, entity: Value, user: Value, session: Value) -> Values:
    """Return the seven values of an event."""
    family, name, detail = (*event_type.split(":"), None)[:3]
    return (family, name, detail, source, entity, user, session)


def passes(values: Values, condition: Condition) -> bool:
    """Say whether an event is what a condition asks for."""
    return all(values[place] == wanted for place, wanted in condition.items())


def may_have(values: Values, asked: Sequence[Channel], granted: Sequence[Channel]) -> bool:
    """Say whether an event may come: it was asked for, and granted."""
    return any(passes(values, each.condition) for each in asked) and any(
        passes(values, each.condition) for each in granted
    )


def is_forbidden(asked: Sequence[Channel], granted: Sequence[Channel]) -> bool:
    """Say whether nothing that was asked for could ever be granted."""
    return not any(
        all(
            one.condition[place] == other.condition[place]
            for place in one.condition.keys() & other.condition
        )
        for one in asked
        for other in granted
    )


class Maker:
    """Makes events, channels and grants at random."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def event(self) -> tuple[str, str, Value, Value, Value]:
        """Return type, source, entity, user and session."""
        pick = self.random.choice
        return (
            pick(TYPES),
            pick(SOURCES),
            pick((*ENTITIES, None)),
            pick((*USERS, *USERS[:6], None, None, None)),
            pick((*SESSIONS, None)),
        )

    def channels(self, most: int = 3) -> list[Channel]:
        """Return a few channels of any form."""
        return [self.channel() for _ in range(self.random.randint(1, most))]

    def grants(self, user: str) -> list[Channel] | None:
        """Return what a token grants; `None` where it says nothing, so that it's the user's own."""
        match self.random.randint(0, 9):
            case 0 | 1 | 2:
                return None
            case 3:
                return [self._routing("user", user), Channel("shared", {5: None})]
            case 4:
                return [Channel("all", {})]
            case 5:
                return []
            case _:
                return self.channels(4)

    def channel(self) -> Channel:
        """Return a channel of any form."""
        kinds = (
            self._all,
            self._event,
            self._any_routing,
            self._both,
            self._pattern,
            self._pattern,
        )
        return self.random.choice(kinds)()

    def _all(self) -> Channel:
        return self.random.choice(
            [
                Channel("all", {}),
                Channel("event:**", {}),
                Channel("shared", {5: None}),
                Channel(">", {}),
            ]
        )

    def _event(self) -> Channel:
        family, name, *detail = self.random.choice(TYPES).split(":")
        forms = [
            Channel(f"event:{family}:**", {0: family}),
            Channel(f"event:{family}:*", {0: family, 2: None}),
            Channel(f"event:*:{name}", {1: name, 2: None}),
            Channel(f"event:{family}:{name}:*", {0: family, 1: name}),
            Channel(f"event:{family}:{name}:**", {0: family, 1: name}),
            Channel(
                ":".join(["event", family, name, *detail]),
                {0: family, 1: name, 2: (*detail, None)[0]},
            ),
        ]
        return self.random.choice(forms)

    def _any_routing(self) -> Channel:
        values = {"user": USERS, "entity": ENTITIES, "session": SESSIONS, "source": SOURCES}
        key = self.random.choice(("user", *values))
        return self._routing(key, self.random.choice(values[key]))

    def _routing(self, key: str, value: str) -> Channel:
        written = value.replace("%", "%25").replace("&", "%26")
        if self.random.random() < 0.3:  # all of it as bytes, which means the same
            written = "".join(f"%{byte:02x}" for byte in value.encode())
        return Channel(f"{key}:{written}", {PLACES.index(key): value})

    def _both(self) -> Channel:
        parts = {
            part.text.partition(":")[0]: part
            for part in (self._any_routing(), self._any_routing(), self._event())
        }
        condition: Condition = {}
        for part in parts.values():
            condition |= part.condition
        return Channel("&".join(part.text for part in parts.values()), condition)

    def _pattern(self) -> Channel:
        values = values_of(*self.event())
        length = self.random.randint(1, 7)
        tokens, condition = [], {}
        for place in range(length):
            if self.random.random() < 0.6:
                tokens.append("*")
            else:
                tokens.append(_encoded(values[place]))
                condition[place] = values[place]
        if length < 7 and self.random.random() < 0.5:
            tokens.append(">")
        return Channel(".".join(tokens), condition)


def _encoded(value: Value) -> str:
    if value is None:
        return "_"
    if value == "_":
        return "%5F"
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    return "".join(
        char if char in plain else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in value
    )


def newest_of_each(seqs: dict[int, Values]) -> Iterator[int]:
    """Yield the sequence of the newest event of each subject."""
    yield from {values: seq for seq, values in sorted(seqs.items())}.values()
