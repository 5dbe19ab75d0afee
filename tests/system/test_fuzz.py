"""A short run of `scripts/fuzz`, which runs as long as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of sockets that were cut on purpose
async def test_no_input_takes_the_gateway_down_or_is_noticed_by_others(tmp_path: Path) -> None:
    assert await fuzz(4, 1, tmp_path) == []
