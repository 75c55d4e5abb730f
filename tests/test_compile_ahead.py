"""With its first call a model compiles all that it needs for any batch size, on two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import environment, python

import fastcnn
from fastcnn import Sequential, nets
from fastcnn.executor import preparation
from fastcnn.kernels import compile_ahead, kernel_cache, program, rehearsal
from fastcnn.kernels.compile_notice import Notice
from fastcnn.kernels.rehearsal import Request
from fastcnn.layers import Dense, Flatten, Layer
from fastcnn.losses import CrossEntropy

SHAPES = {"resnet8": (32, 32, 3)}
BATCHES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 20, 31, 32, 33, 47, 60, 64, 65, 99, 100, 127)


def model_of(name: str) -> Sequential:
    return Sequential(getattr(nets, name)(), SHAPES.get(name, (28, 28, 1)), seed=0)


@pytest.fixture
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are rehearsed, whatever this process or the cache knows of them."""
    monkeypatch.setattr(preparation, "_ready", set())
    monkeypatch.setattr(preparation, "is_recorded", lambda net: False)


EVERY_BATCH = """
import sys
import numpy as np
from fastcnn import Sequential, nets
from fastcnn.kernels.kernel_cache import KernelCache

name, *shape = sys.argv[1].split(",")
model = Sequential(getattr(nets, name)(), tuple(map(int, shape)), seed=0)
x = np.random.default_rng(0).integers(0, 256, (600, *model.input_shape)).astype(np.uint8)
y = np.arange(600) % 10
model.predict(x[:1])
model.train_on_batch(x[:32], y[:32])
missing = []
whole = KernelCache.load_overload
def load(self, sig, target):
    if not self.holds(sig, target):
        missing.append((self.file_name(sig, target), n))
    return whole(self, sig, target)
KernelCache.load_overload = load
for n in map(int, sys.argv[2].split(",")):
    model.predict(x[:n], batch_size=600)
    model.train_on_batch(x[:n], y[:n])
    model.evaluate(x[:n], y[:n])
assert not missing, missing
"""


@pytest.mark.parametrize("name", ["article", "lenet5", "small", "wide", "resnet8"])
def test_after_the_first_calls_no_batch_size_compiles(name: str) -> None:
    shape = ",".join(map(str, SHAPES.get(name, (28, 28, 1))))
    sizes = ",".join(map(str, (*BATCHES, 200, 257, 391, 600)))
    python("-c", EVERY_BATCH, f"{name},{shape}", sizes)


@pytest.mark.usefixtures("nothing_is_known")
@pytest.mark.parametrize("name", ["article", "resnet8"])
def test_a_rehearsal_changes_nothing_and_no_program_of_it_is_kept(name: str) -> None:
    model, other = model_of(name), model_of(name)
    x = np.random.default_rng(0).integers(0, 256, (9, *model._known_shape())).astype(np.uint8)
    y = np.arange(9) % 10
    before = [array.copy() for array in model.get_weights()]
    model.compile_kernels()
    for array, earlier in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, earlier)
    for one in (model, other):  # ``other`` finds all prepared
        for _ in range(2):
            one.train_on_batch(x, y)
    for array, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(array, same)
    np.testing.assert_array_equal(model.predict(x), other.predict(x))


def test_in_a_rehearsal_no_kernel_runs_and_in_other_threads_all_do() -> None:
    from threading import Thread

    x, results = np.full(5, -1.0, np.float32), []
    with rehearsal.rehearsal() as requests:
        fastcnn.relu(x, engine="numba")
        thread = Thread(target=lambda: results.append(fastcnn.relu(x, engine="numba")))
        thread.start()
        thread.join()
        assert rehearsal.rehearsing()
    assert not rehearsal.rehearsing()
    assert not rehearsal.active
    (request,) = requests.values()
    assert request.kernel.__name__ == "relu_kernel"
    np.testing.assert_array_equal(results[0], np.zeros(5))


class Mine(Layer):
    """A layer of a user's own, which counts how often it is called."""

    calls = 0

    def infer(self, input_shape: Any) -> Any:
        return input_shape

    def forward(self, x: Any, training: bool, rng: Any, engine: str | None) -> Any:
        Mine.calls += 1
        return x, None

    def backward(self, dy: Any, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy, {}


Layer.known.pop("Mine")


class MyLoss(CrossEntropy):
    name = "mine"
    calls = 0

    def values(self, *arguments: Any) -> Any:
        MyLoss.calls += 1
        return super().values(*arguments)


@pytest.mark.usefixtures("nothing_is_known")
def test_what_is_a_users_own_is_not_called_in_rehearsals() -> None:
    model = Sequential([Flatten(), Mine(), Dense(3)], (4, 5, 1), seed=0)
    model.predict(np.zeros((2, 4, 5, 1), np.uint8))
    assert Mine.calls == 1
    model = Sequential([Flatten(), Dense(3)], (4, 5, 1), seed=0)
    model.train_on_batch(np.zeros((2, 4, 5, 1), np.uint8), np.array([0, 2]), loss=MyLoss())
    assert MyLoss.calls == 1


# --- two processes --------------------------------------------------------------------------------


def requests_of(name: str) -> list[Request]:
    model = model_of(name)
    executor = model._executor(model._trunk(model._predicting()))
    assert executor is not None
    like = np.zeros((1, *model._known_shape()), np.uint8)
    return preparation.rehearsed(executor._layers, executor.probabilities, like)


def test_each_kernel_of_a_net_has_a_recipe_that_makes_it() -> None:
    for request in (*requests_of("wide"), *requests_of("resnet8")):
        recipe = compile_ahead.recipe_of(request.kernel)
        assert recipe is not None, request.kernel
        assert compile_ahead.kernel_of(recipe) is request.kernel


FIRST = """
import os, sys
import numpy as np
from fastcnn import Sequential, nets
from fastcnn.kernels import compile_ahead

started = []
start = compile_ahead._start_helper
compile_ahead._start_helper = lambda left: started.append(start(left)) or started[-1]
if sys.argv[1] == "dies":
    real = compile_ahead.subprocess.Popen
    def popen(*arguments, **more):
        process = real(*arguments, **more)
        process.kill()
        return process
    compile_ahead.subprocess.Popen = popen
model = Sequential(nets.article(), (28, 28, 1), seed=0)
x = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1)).astype(np.uint8)
print(model.predict(x).tobytes().hex())
print([process is not None for process in started], file=sys.stderr)
"""


@pytest.mark.lasts_long
def test_a_helper_compiles_the_same_and_its_death_costs_time_alone(tmp_path: Path) -> None:
    results = {}
    for kind, threads in (("alone", "1"), ("helped", "2"), ("dies", "2")):
        variables = {"NUMBA_CACHE_DIR": str(tmp_path / kind), "FASTCNN_NUM_THREADS": threads}
        done = python("-c", FIRST, kind, **variables)
        assert done.stderr == f"[{threads == '2'}]\n"
        folder = tmp_path / kind / "fastcnn"
        assert kernel_cache.shared_symbols(folder) == {}
        assert not list(folder.glob("*.tmp"))
        results[kind] = done.stdout
    assert len(set(results.values())) == 1


def test_where_no_process_can_be_started_this_one_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert compile_ahead._start_helper(requests_of("wide")) is None


# --- what is said ---------------------------------------------------------------------------------


def test_compiling_that_lasts_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCNN_COMPILE_NOTICE", "1")
    monkeypatch.setattr("fastcnn.kernels.compile_notice.AFTER", 0.01)
    notice = Notice()
    notice.begin()
    notice.end()
    assert capsys.readouterr().err == ""
    with notice.silenced():
        notice.begin()
        assert notice._timer is None
    assert capsys.readouterr().err == ""
    for _ in range(2):
        notice.begin()
        if notice._timer is not None:
            notice._timer.join()
        notice.end()
    line = capsys.readouterr().err
    assert line.startswith("fastcnn: compiling kernels for this processor; once")
    assert line.count("\n") == 1
    monkeypatch.setenv("FASTCNN_COMPILE_NOTICE", "0")
    silent = Notice()
    silent.begin()
    assert silent._timer is None


# --- a folder that is read-only -------------------------------------------------------------------


def test_kernels_are_read_from_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, own = tmp_path / "image", tmp_path / "own"
    (image / "fastcnn").mkdir(parents=True)
    real = kernel_cache.tempfile.TemporaryFile

    def refused(**more: Any) -> Any:
        if more["dir"] in (image / "fastcnn", kernel_cache.PACKAGE / "kernels" / "__pycache__"):
            raise PermissionError
        return real(**more)

    monkeypatch.setattr(kernel_cache.tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", str(image))
    monkeypatch.setattr("numba.misc.appdirs.AppDirs.user_cache_dir", str(own))
    folders = kernel_cache.cache_folders.__wrapped__()
    assert folders.read[0] == image / "fastcnn"
    assert folders.write == own
    assert folders.read[-1] == own


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    command = "import os; os.umask(0o022); import numpy as np, fastcnn; fastcnn.relu(np.ones(3))"
    python("-c", command, NUMBA_CACHE_DIR=str(tmp_path))
    (path,) = (tmp_path / "fastcnn").glob("*.nbc")
    assert path.stat().st_mode & 0o777 == 0o644


# --- the command ----------------------------------------------------------------------------------


def test_the_command_compiles_what_a_model_needs(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fastcnn", "compile", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment(NUMBA_CACHE_DIR=str(tmp_path / "cache")),
        )

    model = Sequential([Flatten(), Dense(3)], (4, 5, 1), seed=0)
    model.save(tmp_path / "net.safetensors")
    first = run(str(tmp_path / "net.safetensors"), "--predict-only")
    assert first.returncode == 0, first.stderr
    assert "kernels compiled in" in first.stdout
    assert f"kept in {tmp_path / 'cache' / 'fastcnn'}" in first.stdout
    again = run(str(tmp_path / "net.safetensors"), "--predict-only")
    assert "all there" in again.stdout
    wrong = run("--net", "alexnet")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--net must be one of" in wrong.stderr


def test_no_program_outside_of_rehearsals_has_steps_without_address() -> None:
    model = model_of("article")
    model.predict(np.zeros((3, 28, 28, 1), np.uint8))
    executor = model._executor(model._trunk(model._predicting()))
    assert executor is not None
    assert executor._only is not None
    for made in executor._only._plans._made.values():
        assert made.forward.steps.reshape(-1, program.STEP_WORDS)[:, 0].all()
