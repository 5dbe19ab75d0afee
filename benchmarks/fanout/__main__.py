"""Claim: fan-out costs little, from 100 connections to 10,000, beside what one could use instead.

    python -m benchmarks.fanout [--case light] [--server ours-cbor]

Runs the servers one after the other under the same load and prints a row for each case, then the
claims with their bounds. Every row's deliveries are counted: one with a wrong count says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from benchmarks.fanout.cases import ALL, CASES, Case, Load
from benchmarks.fanout.results import Measured, Opened, Results, print_head, print_row
from benchmarks.fanout.servers import SERVERS, AbsentError, Server
from benchmarks.fanout.verdicts import print_verdicts
from benchmarks.stage import open_many_files
from jarvis_mesh.cli.leftovers import end_with_parent
from jarvis_mesh.schema.errors import MeshError

ANSWER_WITHIN = 90.0
"""Seconds; the load generator gives up earlier by itself."""
_OTHER_FILES = 200
LOADS = [load.name for case in CASES for load in case.loads]
_WARM_UP = {"rate": 100, "seconds": 0.5}


class FailedError(Exception):
    """A load that came to nothing; the message says why."""


async def main(loads: Collection[str], servers: Collection[str]) -> bool:
    """Run these loads on these servers and print what comes of it; say whether any failed."""
    results: Results = {}
    print_head()
    for case in CASES:
        for server in ALL:
            wanted = [each for each in case.loads if each.name in loads and server in each.servers]
            if wanted and server in servers:
                await _run(case, wanted, server, results)
    is_partial = len(loads) < len(LOADS) or len(servers) < len(ALL)
    print_verdicts(results, is_partial=is_partial)
    return any(measured.failure for measured in results.values())


async def _run(case: Case, loads: list[Load], name: str, results: Results) -> None:
    """Run *loads* on the same connections."""
    try:
        async with SERVERS[name]() as server, _generator() as generator:
            opened = await _connect(generator, case, server)
            await _ask(generator, {**_WARM_UP, "body_bytes": case.body_bytes})
            for load in loads:
                request = {"rate": load.rate, "seconds": load.seconds}
                answer = await _ask(generator, {**request, "body_bytes": case.body_bytes})
                measured = Measured(opened, **answer)
                results[load.name, name] = measured
                print_row(load.title, name, measured, is_first=load is loads[0])
                if measured.failure:
                    break  # what is still on its way would be counted with the next
    except (AbsentError, FailedError, MeshError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
    else:
        reason = "the load before it failed"
    for load in loads:
        if (load.name, name) not in results:
            print_row(load.title, name, f"not measured: {reason}")


async def _connect(generator: Process, case: Case, server: Server) -> Opened:
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES
    count = min(case.connections, room)
    request = {**asdict(server), "filters": case.filters, "connections": count}
    return Opened(count, case.connections, **await _ask(generator, request))


async def _ask(generator: Process, request: dict[str, Any]) -> dict[str, Any]:
    assert generator.stdin is not None
    assert generator.stdout is not None
    generator.stdin.write(json.dumps(request).encode() + b"\n")
    async with asyncio.timeout(ANSWER_WITHIN):
        line = await generator.stdout.readline()
    if not line:
        raise FailedError("the load generator ended")
    answer: dict[str, Any] = json.loads(line)
    if "failed" in answer:
        raise FailedError(answer["failed"])
    return answer


@asynccontextmanager
async def _generator() -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.fanout.generator"),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C goes to us alone
        preexec_fn=end_with_parent(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.fanout", description=__doc__)
    parser.add_argument("--case", action="append", choices=LOADS, help="only this one; repeatable")
    parser.add_argument("--server", action="append", choices=ALL, help="only this one; repeatable")
    options = parser.parse_args()
    open_many_files()
    try:
        sys.exit(asyncio.run(main(options.case or LOADS, options.server or ALL)))
    except KeyboardInterrupt:
        sys.exit(130)
