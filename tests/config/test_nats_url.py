from __future__ import annotations

import pytest

from jarvis_mesh.config.nats_url import check_nats_urls


@pytest.mark.parametrize(
    "text",
    [
        "nats://127.0.0.1:4222",
        "nats://user:password@host",
        "tls://[::1]:4222,nats://b",
        "nats://a:4222, nats://b:4222",
        "ws://a,wss://b:443",
    ],
)
def test_nats_urls_are_taken(text: str) -> None:
    check_nats_urls(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "hush", "hush:4222", "http://hush", "nats:/hush", "nats://", "nats://u:hush@"),
        *(
            "nats://hush:port",
            "nats://hush:70000",
            "nats://hush,",
            "nats://hush,ws://b",
            "nats://[",
        ),
    ],
)
def test_anything_else_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="write nats://user:password@host:4222") as caught:
        check_nats_urls(text)
    assert "hush" not in str(caught.value)
