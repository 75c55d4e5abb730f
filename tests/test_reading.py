"""Paths that never end: a FIFO, a device, a socket is refused at once, whatever would read it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fastcnn
from fastcnn.bench.report import Report
from fastcnn.callbacks import CSVLog
from fastcnn.cli import app
from fastcnn.core.reading import open_regular, read_text, regular
from fastcnn.datasets import load_mnist
from fastcnn.layers import Dense
from fastcnn.pictures import prepare
from fastcnn.recipes import training

SECONDS = 20
DATA = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte")  # fmt: skip


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """A test that waits is ended."""

    def late(*_: Any) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fifo(folder: Path) -> Path:
    path = folder / "fifo.png"
    os.mkfifo(path)
    return path


def link_to_fifo(folder: Path) -> Path:
    path = folder / "link.png"
    path.symlink_to(fifo(folder))
    return path


def listening(folder: Path) -> Path:
    path = folder / "s"
    here = socket.socket(socket.AF_UNIX)
    here.bind(str(path))  # the name outlasts the socket
    here.close()
    return path


ENDLESS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "fifo": (fifo, r"a FIFO \(named pipe\)"),
    "link": (link_to_fifo, r"a FIFO \(named pipe\)"),
    "socket": (listening, "a socket"),
    "zeros": (lambda folder: Path("/dev/zero"), "a character device"),
    "random": (lambda folder: Path("/dev/urandom"), "a character device"),
    "terminal": (lambda folder: Path("/dev/tty"), "a character device"),
}


def fit(**settings: Any) -> None:
    fastcnn.Sequential([Dense(2)]).fit(np.eye(4), [0, 1, 0, 1], verbose=0, **settings)


READERS: dict[str, Callable[[Path], Any]] = {
    "picture": prepare,
    "picture of colours": lambda path: prepare(path, (8, 8, 3)),
    "model": fastcnn.load_model,
    "model by its name": lambda path: fastcnn.load_model(str(path)),
    "resume": lambda path: fit(resume=path),
    "settings": training.settings_of,
    "training": lambda path: training.train(training.settings_for("article"), resume=path),
    "report": Report.read,
    "log": lambda path: fit(callbacks=[CSVLog(path, append=True)]),
    "bytes": open_regular,
    "text": read_text,
    "name": regular,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ENDLESS)
def test_what_never_ends_is_refused_at_once(kind: str, reader: str, tmp_path: Path) -> None:
    make, message = ENDLESS[kind]
    path = make(tmp_path)
    with pytest.raises(OSError, match=f"must be a regular file, but is {message}") as error:
        READERS[reader](path)
    assert str(error.value.filename) == str(path)


@pytest.mark.parametrize("name", DATA)
def test_a_data_set_of_which_a_file_never_ends(name: str, tmp_path: Path) -> None:
    for stem, sides in zip(DATA, ((30, 8, 8), (30,), (9, 8, 8), (9,)), strict=True):
        if stem == name:
            os.mkfifo(tmp_path / stem)
        else:
            head = bytes([0, 0, 8, len(sides)]) + np.array(sides, ">u4").tobytes()
            (tmp_path / stem).write_bytes(head + bytes(int(np.prod(sides))))
    with pytest.raises(OSError, match=f"{name}|regular file"):
        load_mnist(tmp_path)


def test_commands_end_at_once(tmp_path: Path) -> None:
    path = fifo(tmp_path)
    model = tmp_path / "model.safetensors"
    fastcnn.Sequential([Dense(2)], (3,)).save(model)
    for arguments in (
        ["evaluate", path], ["predict", path, path], ["predict", model, path],
        ["train", "--resume", path], ["train", "--data", path], ["bench", "--compare", path, path],
    ):  # fmt: skip
        done = CliRunner().invoke(app, [*map(str, arguments)])
        assert done.exit_code == 2, (arguments, done.output)
        assert len(done.output.splitlines()) <= 4


def test_a_folder_and_nothing(tmp_path: Path) -> None:
    for reader in (open_regular, regular, read_text, fastcnn.load_model, prepare):
        with pytest.raises(IsADirectoryError):
            reader(tmp_path)
        with pytest.raises(FileNotFoundError):
            reader(tmp_path / "nothing")


def test_a_fifo_that_takes_a_files_name_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = fifo(tmp_path), tmp_path / "file"
    file.write_bytes(b"hello")
    before, looked = os.stat(file), os.stat
    monkeypatch.setattr(os, "stat", lambda name: before if name == str(path) else looked(name))
    count = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="must be a regular file, but is a FIFO"):
        open_regular(path)
    assert len(os.listdir("/proc/self/fd")) == count
    assert read_text(file) == "hello"


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("höllo", "utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_text(tmp_path / "link") == "höllo"
