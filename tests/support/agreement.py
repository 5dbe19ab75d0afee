"""What followers have, compared with the log where nothing may be missing."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.followers import Follower, Journal
from tests.support.truth import Log
from tests.support.waiting import wait_until


async def wait_for_all(followers: Sequence[Follower], log: Log) -> None:
    """Return once every follower has come to the log's end."""
    await wait_until(
        lambda: all(follower.has_all(log.last_event_seq) for follower in followers),
        "the end of the log at every subscription",
        within=30,
    )


def compare(followers: Sequence[Follower], journal: Journal, log: Log) -> None:
    """Fail unless every subscription got exactly what the log holds for it, in order."""
    assert not journal.violations, str(journal.violations[0])
    for follower in followers:
        for name, sub in follower.subscriptions.items():
            wanted = [each.seq for each in log.events if sub.wanted.matches(each.subject)]
            assert sub.received == wanted, f"{follower.name}, {name}"
            assert sub.gaps == []
