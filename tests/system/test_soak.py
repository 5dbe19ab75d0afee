"""Most faults once, under load, as far as half a minute goes; `scripts/soak` takes its time."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.soak.report import describe
from tests.soak.rounds import plan_round, run_round


# nats-py 2.16 forgets the socket of a connection whose server dies before its first word.
@pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")
@pytest.mark.parametrize("number", [0, 1], ids=["lone", "cluster"])
async def test_faults_under_load_lose_and_repeat_nothing(number: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("MESH_TEST_SEED", random.randrange(2**32)))
    print(f"MESH_TEST_SEED={seed}")  # noqa: T201 - shown when the test fails
    plan = plan_round(seed, number, short=True)
    result = await run_round(plan, tmp_path)
    assert result.is_clean, describe(result)
    assert result.injected.keys() >= set(plan.faults)
    assert result.books.delivered > 1_000
