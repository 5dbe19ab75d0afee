"""Cut anywhere, a terminal's bytes come back whole."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.publishers.utf8 import Utf8Decoder


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.text(), st.lists(st.integers(0, 10_000)))
def test_text_cut_anywhere_is_never_torn(text: str, cuts: list[int]) -> None:
    decoder = Utf8Decoder()
    decoded = [decoder.decode(piece) for piece in pieces_of(text.encode(), cuts)]
    decoded.append(decoder.decode(b"", final=True))
    assert "".join(item.text for item in decoded) == text
    assert all(item.is_exact for item in decoded)


@given(st.binary(), st.lists(st.integers(0, 10_000)))
def test_any_bytes_can_be_had_back_from_the_payloads(data: bytes, cuts: list[int]) -> None:
    decoder = Utf8Decoder()
    decoded = [decoder.decode(piece) for piece in pieces_of(data, cuts)]
    decoded.append(decoder.decode(b"", final=True))
    payloads = [item.as_payload("output") for item in decoded]
    back = [
        base64.b64decode(payload["data"]) if "data" in payload else payload["output"].encode()
        for payload in payloads
    ]
    assert b"".join(back) == data


def test_the_start_of_a_character_is_held_back_until_its_end_comes() -> None:
    decoder = Utf8Decoder()
    assert decoder.decode(b"a\xe2\x82").text == "a"
    assert decoder.decode(b"\xac!").text == "€!"


def test_half_a_character_at_the_very_end_is_given_as_bytes() -> None:
    decoder = Utf8Decoder()
    last = decoder.decode(b"a\xe2\x82", final=True)
    assert last.as_payload("output") == {"output": "a\ufffd", "data": "YeKC"}
