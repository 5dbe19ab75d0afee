"""`python -m tests.soak --minutes 10 --seed 1`: rounds of faults until the time is over.

Exits with 1 when anything was lost unsaid, duplicated, out of order, or the books don't balance.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import structlog

from jarvis_mesh.schema import SystemClock
from tests.soak.books import Books
from tests.soak.report import describe, table
from tests.soak.rounds import Result, plan_round, run_round

ROUND_TAKES = 80.0
"""Seconds; no round is begun that would end long after the time."""
_CLOCK = SystemClock()


def main() -> None:
    """Soak as the command line says."""
    options = _parse(sys.argv[1:])
    # Publishers warn of every event that they have to give up: the books know of them.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(f"seed {options.seed}", flush=True)  # noqa: T201
    results: list[Result] = []
    is_whole = True
    try:
        asyncio.run(_soak(options, results))
    except (KeyboardInterrupt, asyncio.CancelledError):
        is_whole = False
    print(f"\n{table(results)}\n\nseed {options.seed}{'' if is_whole else ', interrupted'}")  # noqa: T201
    sys.exit(not (is_whole and results and all(result.is_clean for result in results)))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--round", type=int, help="play this one round of the seed alone")
    return parser.parse_args(arguments)


async def _soak(options: argparse.Namespace, results: list[Result]) -> None:
    """Play rounds until the time is over; add how each went to *results*."""
    this = asyncio.current_task()
    assert this is not None
    # So that whatever runs is killed before we end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    end = _CLOCK.monotonic() + options.minutes * 60
    number = 0 if options.round is None else options.round
    while not results or (options.round is None and _CLOCK.monotonic() + ROUND_TAKES < end):
        results.append(await _play(options.seed, number))
        number += 1


async def _play(seed: int, number: int) -> Result:
    """Play a round; keep what its processes wrote if it went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="mesh-soak-"))
    plan = plan_round(seed, number)
    try:
        result = await run_round(plan, folder)
    except Exception:  # noqa: BLE001 - one round that fails shouldn't hide what others find
        result = Result(plan, Books(complaints=[traceback.format_exc()]), [])
    print(describe(result), flush=True)  # noqa: T201
    if result.is_clean:
        shutil.rmtree(folder)
    else:
        print(f"  again: --seed {seed} --round {number}; logs: {folder}", flush=True)  # noqa: T201
    return result


if __name__ == "__main__":
    main()
