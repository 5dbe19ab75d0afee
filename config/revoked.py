"""Which tokens count no more, as data: the NATS key-value bucket `mesh_revoked`.

`mesh revoke` writes it and every gateway reads it. Clients of NATS know a bucket by its stream's
name and settings, which are those of NATS's own `kv` tools, so that these can be used too.

Source: NATS ADR-8 (key-value buckets), ADR-31 (Direct Get).
"""

from __future__ import annotations

from typing import Any, Final

BUCKET: Final = "mesh_revoked"
STREAM: Final = f"KV_{BUCKET}"
SUBJECT_PREFIX: Final = f"$KV.{BUCKET}."
"""Followed by the key."""
MAX_BYTES: Final = 16 * 1024**2
"""Some 100,000 revocations; when it is full, the next one is refused, and none is forgotten."""
MAX_VALUE_BYTES: Final = 1024
_DUPLICATE_WINDOW: Final = 120_000_000_000
"""Nanoseconds; what the server takes when nothing is said."""


def bucket_config(replicas: int) -> dict[str, Any]:
    """Return the configuration of the bucket's stream, in the form of the JetStream API."""
    return {
        "name": STREAM,
        "subjects": [f"{SUBJECT_PREFIX}>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_bytes": MAX_BYTES,
        "max_msg_size": MAX_VALUE_BYTES,
        "num_replicas": replicas,
        "duplicate_window": _DUPLICATE_WINDOW,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }
