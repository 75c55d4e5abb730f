"""Facts about processors: what the system says, and what stands in for it where it is silent."""

from __future__ import annotations

import platform

import pytest

from fastcnn.core import hardware

CACHES = "/sys/devices/system/cpu/cpu0/cache/"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"index0/level": "1\n", "index0/size": "32K\n", "index1/level": "2\n",
          "index1/size": "512K\n", "index2/level": "3\n", "index2/size": "32768K\n"}, 512 * 1024),
        ({"index0/level": "1\n", "index0/size": "32K\n"}, hardware.L2_BYTES),
        ({}, hardware.L2_BYTES),
        ({"index1/level": "2\n", "index1/size": "a lot\n"}, hardware.L2_BYTES),
    ],
    ids=["three levels", "one level", "silent", "no number"],
)  # fmt: skip
def test_second_level_cache_is_what_the_system_says(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_text", lambda path: files.get(path.removeprefix(CACHES), ""))
    assert hardware.second_level_cache.__wrapped__() == expected


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
