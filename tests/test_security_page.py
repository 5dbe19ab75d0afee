"""docs/security.md names tests that exist, and what it and others link to is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks/README.md"]


def test_every_promise_names_what_holds_it() -> None:
    page = (ROOT / "docs/security.md").read_text()
    promises = page.partition("## Promises")[2].partition("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        held_by = row.split("|")[2]
        assert "](../tests/" in held_by or "scripts/" in held_by, row


def test_what_pages_link_to_exists() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" in target or target.startswith("../../"):
                continue
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        text = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(text.replace(" ", "-"))
    return found


def test_what_pages_link_to_has_such_a_heading() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#]*\.md|)#([^)]+)\)", page.read_text()):
            other = (page.parent / target) if target else page
            if other.exists():
                assert anchor in _anchors(other), f"{page.name} links to {target}#{anchor}"
