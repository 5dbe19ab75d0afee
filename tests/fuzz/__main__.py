"""`python -m tests.fuzz --minutes 10 --seed 1`: hostile input until the time is over.

Exits with 1 when the gateway fell, logged an error, grew, left a connection hanging or kept
something of it, or when a well-behaved client didn't get its events, all and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog

from tests.fuzz.run import Outcome, Run


def main() -> None:
    """Fuzz as the command line says."""
    options = _parse(sys.argv[1:])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    _tell(f"seed {options.seed}")
    folder = Path(tempfile.mkdtemp(prefix="mesh-fuzz-"))
    run = Run(options.seed, options.minutes, _tell, options.attack)
    try:
        asyncio.run(_until_told(run, folder))
    except (KeyboardInterrupt, asyncio.CancelledError):
        run.outcome.complaints.append("interrupted")
    _tell(f"\n{_summary(run.outcome)}\n\nseed {options.seed}")
    if run.outcome.complaints:
        _tell(f"logs: {folder}; one attack alone: --seed {options.seed} --attack NUMBER")
        sys.exit(1)
    shutil.rmtree(folder)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--attack", type=int, help="carry out this one attack of the seed alone")
    return parser.parse_args(arguments)


async def _until_told(run: Run, folder: Path) -> None:
    this = asyncio.current_task()
    assert this is not None
    # So that whatever runs is killed before we end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    await run.run(folder)


def _summary(outcome: Outcome) -> str:
    late = statistics.quantiles(outcome.lateness or [0, 0], n=100)
    rows = [
        *((kind, f"{count:,}") for kind, count in sorted(outcome.attacks.items())),
        ("hostile connections", f"{outcome.attacks.total():,}"),
        ("hostile events in the log", f"{outcome.hostile_events:,}"),
        ("honest events, for each client", f"{outcome.published:,}"),
        ("  received by all", f"{outcome.received:,}"),
        ("  late, p50 and p99", f"{late[49] * 1e3:.0f} and {late[98] * 1e3:.0f} ms"),
        ("gateway's memory, MiB", " ".join(f"{mib:.0f}" for mib in outcome.rss_mib)),
        ("gateway's log, KiB", f"{outcome.log_bytes // 1024:,}"),
        ("wrong", f"{len(outcome.complaints):,}"),
    ]
    return "\n".join(f"{name:<38} {value}" for name, value in rows)


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
