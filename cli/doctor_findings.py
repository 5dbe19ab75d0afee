"""What `mesh doctor` says: one line a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome."""

    claim: str
    """What was checked: true, if nothing is said against it."""
    wrong: str = ""
    """What is the matter and what to do."""
    unknown: bool = False
    """It couldn't be checked, for the reason in `wrong`."""

    @property
    def has_failed(self) -> bool:
        """Whether something must be mended."""
        return bool(self.wrong) and not self.unknown

    @property
    def line(self) -> str:
        """The line for it."""
        if not self.wrong:
            return f"ok       {self.claim}"
        return f"{'unknown' if self.unknown else 'FAILED '}  {self.claim}: {self.wrong}"
