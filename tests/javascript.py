"""JavaScript of the HTML page for the tests: in Node.js where it is, else in Chromium."""

from __future__ import annotations

import json
from importlib.resources import files
from shutil import which
from typing import Any

import limits
import pytest
from browser import PROGRAM, Browser

NODE = which("node") or which("nodejs")
PARTS = ("layers.js", "more_layers.js", "net.js", "pixels.js", "preparation.js")
"""The parts of the page's script that need no page."""


def part(name: str) -> str:
    """The text of one part."""
    return (files("fastcnn.exchange") / "page" / name).read_text("utf-8")


def run(code: str, argument: Any) -> Any:
    """The result of a function of ``argument`` whose body is ``code``; both as JSON values.

    It may use whatever the parts define, and ``await``.
    """
    function = "\n".join([*map(part, PARTS), f"return await (async (argument) => {{{code}}})"])
    if NODE is not None:
        program = (
            "const argument = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
            f"(async () => {{{function}(argument)}})()"
            ".then((result) => process.stdout.write(JSON.stringify(result)))"
            ".catch((error) => { console.error(error); process.exit(1); })"
        )
        done = limits.run([NODE, "-e", program], input=json.dumps(argument), check=True)
        return json.loads(done.stdout)
    if PROGRAM is None:
        pytest.skip("there is neither Node.js nor Chromium here to run JavaScript")
    with Browser() as browser:
        page = browser.open("about:blank")
        return page.evaluate(f"(async () => {{{function}({json.dumps(argument)})}})()")
