"""The log, as data: what the server is told is what the protocol promises."""

from __future__ import annotations

from jarvis_mesh.config.log import LogSettings, differs, stream_config

DAY = 86_400 * 1_000_000_000


def test_the_log_stores_every_family_and_the_ticks_and_nothing_else() -> None:
    subjects = stream_config(LogSettings(families=("agent", "deploy")))["subjects"]
    assert subjects == ["agent.>", "deploy.>", "mesh.tick.>"]


def test_retention_is_by_age_and_bytes_from_the_front_alone() -> None:
    config = stream_config(LogSettings())
    assert (config["max_age"], config["max_bytes"]) == (7 * DAY, 10 * 1024**3)
    assert (config["retention"], config["discard"]) == ("limits", "old")
    assert not {"max_msgs", "max_msgs_per_subject", "allow_msg_ttl"} & set(config)


def test_the_log_is_copied_to_the_live_feed_and_read_directly() -> None:
    config = stream_config(LogSettings())
    assert config["republish"] == {"src": ">", "dest": "live.>"}
    assert config["allow_direct"] is True


def test_an_id_counts_once_in_two_minutes_or_in_the_whole_of_a_shorter_log() -> None:
    assert stream_config(LogSettings())["duplicate_window"] == 120 * 1_000_000_000
    assert stream_config(LogSettings(max_age=10))["duplicate_window"] == 10 * 1_000_000_000


def test_what_the_server_adds_is_no_difference_and_what_it_lacks_is() -> None:
    wanted = stream_config(LogSettings())
    assert not differs({**wanted, "sealed": False}, wanted)
    assert differs({**wanted, "max_bytes": 1}, wanted)
    assert differs({key: value for key, value in wanted.items() if key != "republish"}, wanted)
