"""The cursor of one feed, where the table at the top of feed.py isn't plain."""

from __future__ import annotations

from jarvis_mesh.client.feed import Feed
from jarvis_mesh.schema import Cursor
from jarvis_mesh.schema.wire import Subscribed


def newest_of(head: int) -> Feed:
    """Return a feed that was accepted with "last" when the log stood at *head*."""
    feed = Feed(["all"], "last")
    assert feed.request("a").since == "last"
    feed.accept(Subscribed(sub="a", filters=["*.*.*.*.*.*.*"], cursor=f"7:{head}"))
    return feed


def test_newest_events_move_the_cursor_back_to_themselves() -> None:
    feed = newest_of(100)
    assert feed.take_own(17)
    assert feed.take_own(50)
    assert not feed.take_own(50)
    assert feed.cursor == Cursor("7", 50)
    feed.join(Cursor("7", 100))
    assert feed.cursor == Cursor("7", 100)
    assert not feed.take_own(60)


def test_a_cut_amid_the_newest_events_goes_on_from_the_one_received_last() -> None:
    feed = newest_of(100)
    feed.take_own(17)
    feed.cut()
    assert feed.request("b").since == "7:17"


def test_a_cut_before_any_of_the_newest_events_asks_for_them_again() -> None:
    feed = newest_of(100)
    feed.cut()
    assert feed.request("b").since == "last"
