"""A few seconds of hostile input of all kinds; `scripts/fuzz` takes its time."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.fuzz.run import Run

MINUTES = 0.1


async def test_no_input_brings_a_gateway_down_or_disturbs_others(tmp_path: Path) -> None:
    seed = int(os.environ.get("MESH_TEST_SEED", random.randrange(2**32)))
    print(f"MESH_TEST_SEED={seed}")  # noqa: T201 - shown when the test fails
    outcome = await Run(seed, MINUTES, lambda _line: None).run(tmp_path)
    assert not outcome.complaints
    assert outcome.attacks.total() > 50
    assert outcome.received > 500
