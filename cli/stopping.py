"""Ctrl-C and its kin, as events."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP: the first sets `asked`, the second `hurry`."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Stop in order."""
        self.hurry = asyncio.Event()
        """Stop without waiting for anybody."""

    @contextmanager
    def caught(self) -> Iterator[Self]:
        """Take the signals within; for the main thread alone."""
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else it's nohup's wish
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield self
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        (self.hurry if self.asked.is_set() else self.asked).set()
