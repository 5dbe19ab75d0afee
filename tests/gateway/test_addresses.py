"""A client is who it is connected from; what it says of itself never changes that."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.gateway.addresses import Proxies, limit_key

TRUSTED = Proxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])
NOBODY = Proxies([])

outsiders = st.one_of(
    st.ip_addresses(v=4, network="198.51.100.0/24"),
    st.ip_addresses(v=6, network="2001:db8::/32"),
).map(str)
trusted = st.one_of(
    st.ip_addresses(v=4, network="10.0.0.0/8"), st.ip_addresses(v=6, network="fd00::/8")
).map(str)
entries = st.one_of(st.text(max_size=40), outsiders, trusted, st.ip_addresses().map(str))
fields = st.lists(st.lists(entries, max_size=4).map(", ".join), max_size=4)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),  # anybody can say that
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["1.1.1.1", "203.0.113.9, 192.0.2.7"], "203.0.113.9"),
        ("10.1.2.3", ["10.4.4.4, 10.5.5.5"], "10.4.4.4"),
        ("10.1.2.3", ["1.1.1.1, unknown, 10.5.5.5"], "10.5.5.5"),
        ("10.1.2.3", ["1.1.1.1,"], "10.1.2.3"),
        ("10.1.2.3", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.1.2.3", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.1.2.3", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.1.2.3", ["2001:DB8:0::1"], "2001:db8::1"),
        ("10.1.2.3", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["[2001:db8::1]x"], "10.1.2.3"),
        ("10.1.2.3", ["203.0.113.9:x"], "10.1.2.3"),
        ("::ffff:10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_who_the_client_is(peer: str, forwarded_for: list[str], client: str) -> None:
    assert TRUSTED.client_address(peer, forwarded_for) == client


@given(outsiders, fields)
def test_who_isnt_trusted_is_itself_whatever_it_says(peer: str, said: list[str]) -> None:
    assert TRUSTED.client_address(peer, said) == peer
    assert NOBODY.client_address(peer, said) == peer


@given(st.ip_addresses().map(str), fields)
def test_without_proxies_the_header_means_nothing(peer: str, said: list[str]) -> None:
    assert NOBODY.client_address(peer, said) == NOBODY.client_address(peer, [])


@given(fields, outsiders, st.lists(trusted, min_size=1, max_size=5))
def test_behind_trusted_proxies_nobody_speaks_for_another(
    said: list[str], client: str, chain: list[str]
) -> None:
    *others, peer = chain
    added = ", ".join([client, *others])
    assert TRUSTED.client_address(peer, [*said, added]) == client
    joined = ", ".join([*said, added])  # some proxies make one field of several
    assert TRUSTED.client_address(peer, [joined]) == client


@given(st.one_of(trusted, outsiders), fields)
def test_what_comes_out_is_an_address_that_goes_in_again(peer: str, said: list[str]) -> None:
    client = TRUSTED.client_address(peer, said)
    assert str(ipaddress.ip_address(client)) == client
    assert limit_key(limit_key(client).partition("/")[0]) == limit_key(client)


def test_a_long_list_is_not_read_to_its_end() -> None:
    assert TRUSTED.client_address("10.0.0.1", ["10.0.0.2," * 100_000 + "10.0.0.3"]) == "10.0.0.2"


def test_an_ipv6_client_counts_with_all_of_its_network() -> None:
    assert limit_key("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert limit_key("2001:db8:1:2:ffff::") == "2001:db8:1:2::/64"
    assert limit_key("2001:db8:1:3::") != limit_key("2001:db8:1:2::")
    assert limit_key("::ffff:192.0.2.1") == limit_key("192.0.2.1") == "192.0.2.1"
    assert limit_key("a socket's path") == "a socket's path"


def test_a_network_of_ipv4_written_as_ipv6_is_that_of_ipv4() -> None:
    assert Proxies(["::ffff:10.0.0.0/104"]).client_address("10.1.1.1", ["1.1.1.1"]) == "1.1.1.1"
