"""What takes minutes in processes of its own comes first, so that it is not what all wait for."""

from __future__ import annotations

import signal

import pytest

# What a shell starts in the background has Ctrl-C ignored, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("lasts_long") is None)
