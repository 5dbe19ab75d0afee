"""`python -m jarvis_mesh.config FAMILY…` prints nats.conf for these families."""

import sys

from jarvis_mesh.config.nats_conf import render
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES, check_families

sys.stdout.write(render(check_families(sys.argv[1:] or BUILT_IN_FAMILIES)))
