"""A run is encoded once for all who want it, and what that keeps in memory is bounded."""

from __future__ import annotations

import gc
import weakref

from jarvis_mesh.gateway.encoded_runs import EncodedRuns
from jarvis_mesh.gateway.formats import CBOR, JSON
from jarvis_mesh.gateway.stored_event import StoredEvent
from tests.support.stored import stored


def test_a_run_is_encoded_once_for_each_form_and_subscription() -> None:
    runs, run = EncodedRuns(), (stored(1), stored(2))
    first = runs.encode(run, JSON, None)
    assert runs.encode(run, JSON, None) is first
    assert first == run[0].json + b"\n" + run[1].json
    assert runs.encode(run, CBOR, None) == run[0].cbor + run[1].cbor
    assert runs.encode(run, JSON, "a") == run[0].json_for("a") + b"\n" + run[1].json_for("a")


class Watched(StoredEvent):
    """One that says when it is gone."""

    __slots__ = ("__weakref__",)


def test_the_events_of_runs_that_were_encoded_long_ago_are_let_go() -> None:
    runs, alive = EncodedRuns(max_bytes=1024 * 1024), []
    for seq in range(2_000):
        model = stored(seq)
        event = Watched(model.place, b"", model.body)
        alive.append(weakref.ref(event))
        runs.encode((event,), CBOR, None)
        del event
    gc.collect()
    assert 400 < sum(each() is not None for each in alive) < 1_000
