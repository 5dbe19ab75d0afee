"""Pages of other sites, and names that were rebound to this machine, are refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from jarvis_mesh.gateway.guard import Guard, GuardMiddleware, parse_host

HERE = Guard(["https://good.example"], any_address=False)
BEYOND = Guard([], ["mesh.lan", "fd00::1"], any_address=True)


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def answer_of(
    guard: GuardMiddleware, path: str = "/", **headers: str | list[str]
) -> tuple[int, str]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    raw = [
        (name.encode(), value.encode())
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    await guard({"type": "http", "path": path, "headers": raw}, receive, send)
    return int(sent[0]["status"]), sent[-1]["body"].decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:3200"}, 200),
        ({"host": "LocalHost:3200"}, 200),
        ({"host": "127.0.0.1:3200"}, 200),
        ({"host": "127.8.8.8"}, 200),
        ({"host": "[::1]:3200"}, 200),
        ({"host": "[0:0::1]:3200"}, 200),
        ({"host": "[::ffff:127.0.0.1]"}, 200),
        ({"host": "app.localhost:3200"}, 200),
        ({"host": "evil.example:3200"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "192.0.2.1"}, 403),
        ({"host": ["localhost", "localhost"]}, 403),
        ({"host": ["localhost", "evil.example"]}, 403),
        ({"host": ""}, 403),
        ({}, 403),
        ({"host": "localhost:3200", "origin": "http://localhost:3200"}, 200),
        ({"host": "localhost:3200", "origin": "https://localhost:3200"}, 200),
        ({"host": "localhost:3200", "origin": "HTTP://LOCALHOST:3200"}, 200),
        ({"host": "localhost", "origin": "https://localhost"}, 200),
        ({"host": "localhost:443", "origin": "https://localhost"}, 200),
        ({"host": "localhost", "origin": "https://localhost:443"}, 200),
        ({"host": "localhost", "origin": "http://localhost:443"}, 403),
        ({"host": "[::1]:3200", "origin": "http://[0::1]:3200"}, 200),
        ({"host": "localhost:3200", "origin": "https://good.example"}, 200),
        ({"host": "localhost:3200", "origin": "https://good.example:443"}, 200),
        ({"host": "localhost:3200", "origin": "http://good.example"}, 403),
        ({"host": "localhost:3200", "origin": "https://good.example:444"}, 403),
        ({"host": "localhost:3200", "origin": "https://evil.example"}, 403),
        (
            {"host": "localhost:3200", "origin": ["https://good.example", "https://evil.example"]},
            403,
        ),
        ({"host": "localhost:3200", "origin": "http://localhost:8000"}, 403),
        ({"host": "localhost:3200", "origin": "http://localhost"}, 403),
        ({"host": "localhost:3200", "origin": "null"}, 403),
        ({"host": "localhost:3200", "origin": ""}, 403),
        ({"host": "localhost:3200", "origin": "//localhost:3200"}, 403),
        ({"host": "localhost:3200", "origin": "javascript://localhost:3200"}, 403),
        ({"host": "localhost:3200", "origin": "http://localhost:3200/"}, 403),
        ({"host": "evil.example@localhost"}, 403),
        ({"host": "localhost/evil.example"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
        ({"host": "evil.example", "origin": "https://good.example"}, 403),
    ],
)
async def test_only_this_machine_and_allowed_origins_pass(
    headers: dict[str, str | list[str]], status: int
) -> None:
    assert (await answer_of(GuardMiddleware(app, HERE), **headers))[0] == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("mesh.lan:3200", 200),
        ("MESH.LAN", 200),
        ("192.0.2.1:3200", 200),
        ("[2001:db8::1]:3200", 200),
        ("[fd00:0::1]", 200),
        ("localhost", 200),
        ("evil.example", 403),
        ("www.mesh.lan", 403),
        ("192.0.2.1.evil.example", 403),
        ("0x7f.1", 403),
    ],
)
async def test_beyond_loopback_any_address_passes_and_names_that_are_allowed(
    host: str, status: int
) -> None:
    assert (await answer_of(GuardMiddleware(app, BEYOND), host=host))[0] == status


async def test_a_refusal_names_the_setting_that_would_help() -> None:
    guard = GuardMiddleware(app, BEYOND)
    status, why = await answer_of(guard, host="evil.example")
    assert (status, why) == (
        403,
        "'evil.example' isn't known as this gateway; see MESH_ALLOWED_HOSTS.\n",
    )
    status, why = await answer_of(guard, host="mesh.lan", origin="https://a.example")
    assert (status, why) == (
        403,
        "Pages of 'https://a.example' may not; see MESH_ALLOWED_ORIGINS.\n",
    )


async def test_a_star_lets_any_name_in_but_neither_nonsense_nor_other_pages() -> None:
    guard = GuardMiddleware(app, Guard([], ["*"], any_address=False))
    assert (await answer_of(guard, host="anything.example"))[0] == 200
    assert (await answer_of(guard, host="any thing"))[0] == 403
    assert (await answer_of(guard, host="a.example", origin="http://b.example"))[0] == 403


async def test_health_is_told_to_everybody() -> None:
    guard = GuardMiddleware(app, HERE)
    assert (await answer_of(guard, "/healthz", host="10.0.0.7:3200"))[0] == 200
    assert (await answer_of(guard, "/healthz/x", host="10.0.0.7:3200"))[0] == 403


label = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,10}[A-Za-z0-9_])?", fullmatch=True)
names = st.lists(label, min_size=1, max_size=5).map(".".join)
ports = st.one_of(st.just(""), st.integers(0, 99_999).map(":{}".format))
lookalikes = st.sampled_from(
    ["localhost", "mesh.lan", "127.0.0.1", "192.0.2.1", "::1", "[::1]", "[fd00::1]"]
)


@given(names, ports, lookalikes, st.sampled_from(["{0}.{1}", "{1}.{0}", "{1}{0}", "{0}{1}", "{0}"]))
def test_no_foreign_name_gets_through(name: str, port: str, known: str, form: str) -> None:
    host = form.format(name, known)
    lowered = host.lower()
    assume(lowered not in ("localhost", "mesh.lan") and not lowered.endswith(".localhost"))
    try:
        ipaddress.ip_address(lowered.strip("[]"))
    except ValueError:
        assert BEYOND.refusal([host + port], []) is not None
        assert HERE.refusal([host + port], []) is not None


@given(st.text(max_size=60))
def test_whatever_is_in_host_is_a_name_or_an_address_or_refused(text: str) -> None:
    parsed = parse_host(text)
    if parsed is None:
        assert BEYOND.refusal([text], []) is not None
    else:
        assert parsed.name in text.lower() or ":" in parsed.name or "[" in text


@given(names, ports, st.sampled_from(["http", "https", "ws", "file", ""]))
def test_no_foreign_origin_gets_through(name: str, port: str, scheme: str) -> None:
    assume(name.lower() not in ("localhost", "good.example"))
    assert HERE.refusal(["localhost"], [f"{scheme}://{name}{port}"]) is not None


@pytest.mark.parametrize("host", ["", "[::g]", "a:b:c", "[", "localhost:", "localhost:123456", "é"])
def test_what_is_no_host(host: str) -> None:
    assert parse_host(host) is None
