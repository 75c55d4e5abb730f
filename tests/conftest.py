"""What takes minutes in processes of its own begins with the session.

It has the other processor, and is done when its test is reached.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import guarded
import pytest

# What a shell starts in the background has Ctrl-C ignored, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def guarded_runs(request: pytest.FixtureRequest) -> Iterator[dict[str, guarded.Run]]:
    """The runs of ``guarded.py`` for the tests that were chosen, by their instruction sets."""
    runs = {}
    for item in request.session.items:
        module, calls = getattr(item, "module", None), getattr(item, "callspec", None)
        if calls is not None and "guarded_isa" in calls.params:
            isa = calls.params["guarded_isa"]
            runs[isa] = guarded.Run(isa, *module.SCOPES[isa])  # type: ignore[union-attr]
    yield runs
    for run in runs.values():
        run.leave()
