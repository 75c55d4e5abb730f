"""Facts about processors: what the system says, and what stands in for it where it is silent."""

from __future__ import annotations

import platform

import pytest

from fastcnn.core import hardware


def test_memory_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hardware.os, "sysconf")
    assert hardware.memory.__wrapped__() == 1 << 40
    monkeypatch.setattr(hardware.os, "sysconf", lambda name: -1, raising=False)
    assert hardware.memory.__wrapped__() == 1 << 40


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name\t: CPU @ 3 GHz\nmodel name\t: Other\n", "CPU @ 3 GHz"),
        ("Model\t: Some Board Rev 1\n", "Some Board Rev 1"),
        ("model name :\n", "what Python says"),
        ("", "what Python says"),
    ],
)
def test_the_processors_name(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_text", lambda path: text)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "processor", lambda: "what Python says")
    assert hardware.processor_name() == name
