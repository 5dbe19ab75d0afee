"""Print or write the configuration of NATS.

python -m jarvis_mesh.config [FAMILY…]           nats.conf, for one machine
python -m jarvis_mesh.config production DIR      a directory for production, with new nkeys
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jarvis_mesh.config.nats_conf import render
from jarvis_mesh.config.nats_production import write_production
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES, check_families


def main(arguments: Sequence[str]) -> None:
    """Do what *arguments* say.

    Raises:
        SetupError: a family isn't one, or a file can't be written.
    """
    if arguments[:1] == ["production"]:
        _write_production(arguments[1:])
    else:
        sys.stdout.write(render(check_families(arguments or BUILT_IN_FAMILIES)))


def _write_production(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jarvis_mesh.config production",
        description="Write nats-server.conf, users.conf and the nkeys of all users into DIR.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("--families", help="as in MESH_FAMILIES, with commas between")
    parser.add_argument("--renew", metavar="USER", action="append", default=[])
    given = parser.parse_args(arguments)
    families = given.families.split(",") if given.families else BUILT_IN_FAMILIES
    seeds = write_production(given.directory, check_families(families), given.renew)
    sys.stdout.write("".join(f"{seed}\n" for seed in seeds))


try:
    main(sys.argv[1:])
except SetupError as error:
    sys.exit(f"mesh: {error.message}")
