"""Fan-out: an event is encoded once and written to every member of the groups it matches.

A group is the connections with the same live filters and format, served with the same bytes.
Everything here is synchronous: one loop, no task and no wait per client.
"""

from __future__ import annotations

from typing import Protocol

from jarvis_mesh.gateway.formats import Format
from jarvis_mesh.gateway.interest import Interest
from jarvis_mesh.gateway.stored_event import StoredEvent


class Member(Protocol):
    """A connection, as a group sees it."""

    def write_live(self, message: bytes) -> None:
        """Queue an encoded live event. It must not raise nor wait."""

    def skip_unreadable(self, event: StoredEvent) -> None:
        """Say that an event which matches can't be delivered."""


class Group:
    """Connections that get the same events in the same form."""

    def __init__(self, interests: frozenset[Interest], form: Format, position: int) -> None:
        self.last_seq = position
        self.members: set[Member] = set()
        self._form = form
        self._interests = interests
        for interest in interests:
            interest.sinks.add(self)

    def deliver(self, event: StoredEvent) -> None:
        """Write *event* to every member."""
        if event.event is None:
            for member in tuple(self.members):
                member.skip_unreadable(event)
            return
        message = self._form.event(event)
        for member in tuple(self.members):  # a member that is too slow leaves meanwhile
            member.write_live(message)

    def dissolve(self) -> None:
        """Get no more events."""
        for interest in self._interests:
            interest.sinks.discard(self)


class Fanout:
    """All groups, by what their members are interested in."""

    def __init__(self) -> None:
        self._groups: dict[tuple[frozenset[Interest], Format], Group] = {}

    @property
    def members(self) -> int:
        """How many connections get live events."""
        return sum(len(group.members) for group in self._groups.values())

    def join(
        self, member: Member, interests: frozenset[Interest], form: Format, position: int
    ) -> None:
        """Give *member* every event above *position* that one of *interests* is for."""
        group = self._groups.get((interests, form))
        if group is None:
            group = self._groups[interests, form] = Group(interests, form, position)
        group.members.add(member)

    def leave(self, member: Member, interests: frozenset[Interest], form: Format) -> None:
        """Undo `join`; a no-op if *member* isn't in that group."""
        group = self._groups.get((interests, form))
        if group is None:
            return
        group.members.discard(member)
        if not group.members:
            group.dissolve()
            del self._groups[interests, form]
