"""A bucket of tokens: never more than its rate and its burst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.gateway.rates import TokenBucket

STEPS = st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 5)), max_size=50)


@given(STEPS)
def test_no_more_passes_than_the_burst_and_what_comes_meanwhile(
    steps: list[tuple[float, float]],
) -> None:
    now, taken, bucket = 100.0, 0.0, TokenBucket(2, 10, 100.0)
    for pause, count in steps:
        now += pause
        if bucket.take(count, now):
            taken += count
        assert taken <= 10 + 2 * (now - 100) + 1e-6


def test_what_is_refused_costs_nothing_and_time_fills_it() -> None:
    bucket = TokenBucket(1, 3, 0)
    assert bucket.take(3, 0)
    assert not bucket.take(1, 0.5)
    assert bucket.take(1, 1)
    assert not bucket.is_full(3.5)
    assert bucket.is_full(4)
    assert not bucket.take(4, 1000)
