"""Publishing events into the log: for any source, by family, and ready-made services."""

from jarvis_mesh.publishers.agent import AgentPublisher
from jarvis_mesh.publishers.base import EventPublisher
from jarvis_mesh.publishers.event_builder import Filing
from jarvis_mesh.publishers.pty_child import ExitStatus
from jarvis_mesh.publishers.pty_terminal import Terminal
from jarvis_mesh.publishers.system import SystemPublisher
from jarvis_mesh.publishers.system_monitor import SystemMonitor
from jarvis_mesh.publishers.terminal import TerminalPublisher
from jarvis_mesh.publishers.terminal_service import TerminalService
from jarvis_mesh.publishers.window import Published, WindowLimits
from jarvis_mesh.schema.nats_credentials import NatsCredentials

__all__ = [
    "AgentPublisher",
    "EventPublisher",
    "ExitStatus",
    "Filing",
    "NatsCredentials",
    "Published",
    "SystemMonitor",
    "SystemPublisher",
    "Terminal",
    "TerminalPublisher",
    "TerminalService",
    "WindowLimits",
]
