"""What an operator chooses, and the log and nats.conf that follow from it.

`Settings` is imported from `jarvis_mesh.config.settings`: pydantic takes a fifth of a second,
which commands that need only the rest shouldn't pay.
"""

from jarvis_mesh.config.log import STREAM, LogSettings, stream_config
from jarvis_mesh.config.nats_conf import ADMIN, CLIENT_SOURCE, GATEWAY, SOURCES, USERS, render

__all__ = [
    "ADMIN",
    "CLIENT_SOURCE",
    "GATEWAY",
    "SOURCES",
    "STREAM",
    "USERS",
    "LogSettings",
    "render",
    "stream_config",
]
