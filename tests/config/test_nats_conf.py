"""nats.conf is what the code says it is."""

from __future__ import annotations

from pathlib import Path

from jarvis_mesh.config.nats_conf import conf_path, render
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES


def test_the_shipped_file_is_the_rendered_one() -> None:
    shipped = conf_path().read_text()
    assert shipped == render(BUILT_IN_FAMILIES), "run: python -m jarvis_mesh.config >nats.conf"
    assert shipped == (Path(__file__).parents[2] / "nats.conf").read_text()
