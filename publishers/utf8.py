"""Bytes of a terminal, cut anywhere, to text that never tears a character."""

from __future__ import annotations

import base64
import codecs
from dataclasses import dataclass

from jarvis_mesh.schema.event import JSON


@dataclass(frozen=True, slots=True)
class Decoded:
    """A piece of text and the bytes that it stands for."""

    text: str
    """With U+FFFD for what isn't UTF-8."""
    data: bytes
    is_exact: bool
    """Whether *text* in UTF-8 is *data*."""

    def as_payload(self, key: str) -> dict[str, JSON]:
        """Return the text under *key*, and in base64 the bytes when the text isn't exact."""
        if self.is_exact:
            return {key: self.text}
        return {key: self.text, "data": base64.b64encode(self.data).decode()}


class Utf8Decoder:
    """Holds back the beginning of a character until its end has come."""

    def __init__(self) -> None:
        self._held = b""

    def decode(self, chunk: bytes, *, final: bool = False) -> Decoded:
        """Return what is complete in *chunk* and what was held back; *final* holds nothing."""
        data = self._held + chunk
        try:
            text, used = codecs.utf_8_decode(data, "strict", final)
            is_exact = True
        except UnicodeDecodeError:
            text, used = codecs.utf_8_decode(data, "replace", final)
            is_exact = False
        self._held = data[used:]
        return Decoded(text, data[:used], is_exact)

    def reset(self) -> int:
        """Forget what is held back, and return how many bytes that was."""
        forgotten, self._held = len(self._held), b""
        return forgotten
