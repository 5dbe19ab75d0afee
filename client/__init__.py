"""The Python SDK of jarvis-mesh: watch and publish events through a gateway.

from jarvis_mesh.client import Mesh
"""

from jarvis_mesh.client.client import Mesh
from jarvis_mesh.client.credentials import GetToken
from jarvis_mesh.client.feed import Since
from jarvis_mesh.client.listeners import (
    ConnectionNotice,
    ErrorNotice,
    GapNotice,
    LaggingNotice,
    LiveNotice,
)
from jarvis_mesh.client.publishing import Published
from jarvis_mesh.client.subscription import Subscription

__all__ = [
    "ConnectionNotice",
    "ErrorNotice",
    "GapNotice",
    "GetToken",
    "LaggingNotice",
    "LiveNotice",
    "Mesh",
    "Published",
    "Since",
    "Subscription",
]
