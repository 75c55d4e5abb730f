"""A browser for the tests of the HTML page: Chromium without a window, driven through pipes.

The DevTools protocol is JSON between zero bytes: the browser reads commands from its descriptor 3,
and writes answers and events to 4. Nothing is installed, and no port is opened.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from select import select
from shutil import which
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import limits

PROGRAM = which("chromium") or which("chromium-browser") or which("google-chrome")
WITHOUT = "there is no Chromium here: apt-get install chromium"
SECONDS = 60.0
"""How long one answer may take, on a machine that does other work."""

START = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""A program that becomes the browser, with the pipes at the numbers that the browser expects."""


class Browser:
    """A running browser; a context that ends it."""

    def __init__(self) -> None:
        assert PROGRAM is not None, WITHOUT
        self._folder = TemporaryDirectory(prefix="fastcnn-browser-", ignore_cleanup_errors=True)
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        options = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
            "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
            "--force-color-profile=srgb", f"--user-data-dir={self._folder.name}", "about:blank",
        )  # fmt: skip
        self._process = limits.start(
            [sys.executable, "-c", START, str(commands), str(answers), PROGRAM, *options],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._rest = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        limits.end(self._process)
        os.close(self._write)
        os.close(self._read)
        self._folder.cleanup()

    def open(self, path: Path | str, width: int = 1280, dark: bool = False) -> Page:
        """A page of a file, in a window of this width."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        if str(path) != "about:blank":
            page.send("Page.navigate", url=Path(path).as_uri())
            page.wait("document.readyState === 'complete' && location.protocol === 'file:'")
        return page

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """A command's result. Events that come before it go to their pages."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None:
                page.note(answer)

    def _receive(self) -> Any:
        end = monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select([self._read], [], [], max(end - monotonic(), 0))
            assert ready, f"the browser did not answer in {SECONDS} s"
            chunk = os.read(self._read, 1 << 16)
            assert chunk, "the browser ended"
            self._rest += chunk
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


class Page:
    """A page: what it shows, what it asks for, and its errors.

    Attributes:
        requests: the addresses that it asked for.
        errors: messages of errors, also of what its policy forbids.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.requests: list[str] = []
        self.errors: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **parameters)

    def note(self, event: dict[str, Any]) -> None:
        """Keep what an event says of requests and errors."""
        values = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(values["exceptionDetails"])[:1000])
        elif event["method"] == "Log.entryAdded":
            self.errors.append(values["entry"]["text"])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        end = monotonic() + SECONDS
        while monotonic() < end:
            value = self.evaluate(expression)
            if value:
                return value
            self.evaluate("new Promise((done) => setTimeout(done, 20))")
        raise AssertionError(f"{expression} did not become true in {SECONDS} s: {self.errors}")

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Press, move or release the mouse: "mousePressed", "mouseMoved" or "mouseReleased"."""
        self.send(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1
        )

    def key(self, name: str) -> None:
        """Press and release a key, such as "ArrowUp" or "Tab"."""
        text = {"text": " "} if name == " " else {}
        code = {"Tab": 9, " ": 32, "Enter": 13}.get(name, 0)
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def screenshot(self) -> bytes:
        """The whole page as a PNG file."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return b64decode(answer["data"])
