"""Values in error messages, each in at most one line.

A value from a file or a user may be megabytes long, or an object whose ``repr`` fails. A message
must still be short, and cost little time.
"""

from __future__ import annotations

import reprlib

MOST = 300
"""Characters of a quoted value at most."""


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 10
        self.maxdeque = self.maxarray = 10
        self.maxstring = self.maxother = 200
        self.maxlong = 60

    def repr_int(self, value: int, level: int) -> str:
        if abs(value) < 10**self.maxlong:
            return repr(int(value)) if type(value) is int else repr(value)
        # Python does not convert integers of more than some thousand digits to text.
        return f"an integer of about {value.bit_length() * 30103 // 100000 + 1} digits"

    def repr_instance(self, value: object, level: int) -> str:
        try:
            text = repr(value)
        except Exception:  # no address, because it would differ from run to run
            return f"an object of {type(value).__name__}"
        if "\n" in text:
            text = " ".join(text.split())
        return shortened(text, self.maxother)

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[: self.maxstring]) + ("…" if len(value) > self.maxstring else "")

    repr_bytearray = repr_bytes


_short = _Short()


def quoted(value: object) -> str:
    """``repr(value)``, but in at most 300 characters, and in bounded time.

    >>> quoted("28"), quoted([1, 2.5, None]), quoted({"units": -1})
    ("'28'", '[1, 2.5, None]', "{'units': -1}")
    >>> quoted("x" * 10**7)[:4], len(quoted(list(range(10**6)))), quoted(10**5000)
    ("'xxx", 35, 'an integer of about 5001 digits')
    """
    return shortened(_short.repr(value))


def shortened(text: str, most: int = MOST) -> str:
    """The text, or the beginning and the end of a text of more than ``most`` characters.

    >>> shortened("a" * 20 + "b" * 20, 15)
    'aaaaaaa … bbbbb'
    """
    if len(text) <= most:
        return text
    end = most // 2 - 2
    return f"{text[: most - end - 3]} … {text[-end:]}"
