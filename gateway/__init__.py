"""The gateway: a client's channels become NATS subscriptions, what it missed is replayed."""

from jarvis_mesh.gateway.app import create_app
from jarvis_mesh.gateway.server import serve

__all__ = ["create_app", "serve"]
