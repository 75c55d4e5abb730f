"""With its first call a model compiles all that it needs for any batch size, on two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import graphs
import numpy as np
import pytest
from limits import run
from processes import environment, python

import fastcnn
from fastcnn import Input, Model, Sequential
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import compile_ahead, kernel_cache, memory, program, rehearsal
from fastcnn.engine.numba.runtime.compile_notice import Notice
from fastcnn.engine.numba.runtime.rehearsal import Request
from fastcnn.layers import Add, BatchNorm, Conv2D, Dense, Flatten, Layer, ReLU, Sigmoid
from fastcnn.losses import CrossEntropy
from fastcnn.models import nets
from fastcnn.models.execution import Executor, preparation
from fastcnn.optimizers import SGD
from fastcnn.schedules import Schedule

pytestmark = pytest.mark.usefixtures("compiling_ahead")

SHAPES = {"resnet8": (32, 32, 3)}
BATCHES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 20, 27, 31, 32, 33, 47, 60, 64, 65, 99, 100, 127)


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
from fastcnn.models import nets
from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.kernel_cache import KernelCache

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
@pytest.mark.parametrize("name", [name for name in graphs.GRAPHS if name != "u_net"])
def test_a_rehearsed_graph_needs_no_other_kernel(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the layer of a user's own, which ``u_net`` has."""
    requests, loads = list[Request](), list[object]()
    load = kernel_cache.KernelCache.load_overload

    def load_overload(cache: Any, signature: Any, target: Any) -> Any:
        loads.append((cache, signature))
        return load(cache, signature, target)

    def compile_all(some: list[Request], progress: object = None) -> int:
        requests.extend(some)
        return len(some)

    monkeypatch.setattr(preparation, "compile_all", compile_all)
    monkeypatch.setattr(kernel_cache.KernelCache, "load_overload", load_overload)
    model = graphs.graph(name)
    x, y = graphs.samples(model, 3), graphs.targets(model, 3)
    model.predict(x)
    predicting = len(requests)
    model.train_on_batch(x, y)
    assert 0 < predicting < len(requests)
    assert set(loads) <= {(request.kernel._cache, request.signature) for request in requests}


@pytest.mark.usefixtures("nothing_is_known")
@pytest.mark.parametrize("name", ["article", "resnet8"])
def test_a_rehearsal_changes_nothing_and_no_program_of_it_is_kept(name: str) -> None:
    model, other = model_of(name), model_of(name)
    x = np.random.default_rng(0).integers(0, 256, (9, *model.inputs[0].shape)).astype(np.uint8)
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


@pytest.mark.usefixtures("nothing_is_known")
def test_a_rehearsal_prepares_no_weights() -> None:
    x = np.zeros((1, 3, 4, 64), np.float32)
    layers = [Conv2D(64, 3, strides=2, padding="same"), BatchNorm(), Flatten(), Dense(3)]
    model = Sequential(layers, x.shape[1:], seed=0)
    executor = model._executor(model._graph)
    assert executor is not None
    executor.prepare_prediction([x])
    prediction = executor._prediction
    assert prediction is not None
    assert prediction._prepared.size == 0
    model.predict(x)
    assert prediction._prepared.size > 0


def test_a_batch_without_memory_keeps_no_other_from_its_rehearsal() -> None:
    counts = []

    def run(samples: Sequence[Array]) -> None:
        counts.append(len(samples[0]))
        if len(samples[0]) in (3, 7):
            raise MemoryError

    model = model_of("article")
    preparation.rehearse(model.layers, run, [np.zeros((3, 28, 28, 1), np.float32)])
    assert counts == [3, *(n for n in preparation.COUNTS if n != 3)]


@pytest.mark.usefixtures("nothing_is_known")
def test_without_compiling_ahead_only_an_explicit_call_prepares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = []

    def compile_all(requests: list[Request], progress: object = None) -> int:
        counts.append(len(requests))
        return 0

    monkeypatch.setattr(preparation, "compile_all", compile_all)
    monkeypatch.setenv("FASTCNN_COMPILE_AHEAD", "0")
    model, x, y = model_of("article"), np.zeros((2, 28, 28, 1), np.uint8), [0, 1]
    model.predict(x)
    model.train_on_batch(x, y)
    assert not counts
    model.compile_kernels()
    assert counts
    assert min(counts) > 1
    monkeypatch.delenv("FASTCNN_COMPILE_AHEAD")
    counts.clear()
    preparation._ready.clear()
    model_of("article").predict(x)
    assert counts


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


Layer.registry.pop("Mine")


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


class MySchedule(Schedule):
    """A schedule of a user's own, which cannot be saved."""

    def __call__(self, step: int) -> float:
        return 0.5

    def config(self) -> dict[str, Any]:
        raise NotImplementedError


Schedule.registry.pop("MySchedule")


@pytest.mark.usefixtures("nothing_is_known")
def test_an_optimizer_with_a_users_schedule_and_clipping_is_prepared() -> None:
    model, optimizer = model_of("article"), SGD(MySchedule(), clip_norm=1.0)
    model.train_on_batch(np.zeros((2, 28, 28, 1), np.uint8), np.array([0, 2]), optimizer)
    assert optimizer.step_count == 1


@pytest.mark.usefixtures("nothing_is_known")
def test_a_net_that_ends_in_feature_maps_is_prepared() -> None:
    model = Sequential([Conv2D(3, 3), ReLU()], (8, 9, 2), seed=0)
    assert model.predict(np.zeros((2, 8, 9, 2), np.float32)).shape == (2, 6, 7, 3)
    model.compile_kernels()


@pytest.mark.usefixtures("nothing_is_known")
def test_each_form_of_a_loss_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    real, purposes = preparation.rehearse, list[int]()

    def rehearse(*arguments: Any) -> list[Request]:
        purposes.append(len(requests := real(*arguments)))
        return requests

    monkeypatch.setattr(preparation, "rehearse", rehearse)
    x, y = np.zeros((2, 28, 28, 1), np.uint8), np.array([0, 2])
    for loss in (CrossEntropy(), CrossEntropy(0.1), CrossEntropy()):
        model_of("article").train_on_batch(x, y, loss=loss)
    assert len(purposes) == 2


@pytest.mark.usefixtures("nothing_is_known")
def test_each_kind_of_step_is_prepared_also_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, real = list[str](), Executor.prepare_training

    def prepare_training(executor: Any, like: Any, targets: Any, *goal: Any, **more: Any) -> int:
        kinds.append(f"{type(goal[0]).__name__} {type(goal[1]).__name__}")
        return real(executor, like, targets, *goal, **more)

    monkeypatch.setattr(Executor, "prepare_training", prepare_training)
    x, y = np.zeros((4, 5), np.float32), np.array([0, 2, 1, 1])
    for accumulate in (1, 2):
        kinds.clear()
        model = Sequential([Dense(3)], (5,), seed=0)
        for optimizer in ("sgd", "adam", "sgd"):
            model.fit(x, y, optimizer=optimizer, accumulate=accumulate, verbose=0)
        model.fit(x, np.eye(3)[y], loss="mse", accumulate=accumulate, verbose=0)
        assert kinds == ["CrossEntropy SGD", "CrossEntropy Adam", "MeanSquaredError SGD"]


@pytest.mark.usefixtures("nothing_is_known")
def test_a_model_with_several_outputs_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    x = Input((5,))
    hidden = Dense(4)(x)
    model = Model(x, [Dense(3)(hidden), Sigmoid()(Dense(1)(hidden))], seed=0)
    counts = list[int]()
    real = preparation.compile_all

    def compile_all(requests: list[Request], progress: Any = None) -> int:
        counts.append(len(requests))
        return real(requests, progress)

    monkeypatch.setattr(preparation, "compile_all", compile_all)
    model.compile_kernels()
    known = len(preparation._ready)
    assert len(counts) == known == 4  # predictions and training, of floats and of bytes
    targets = [np.array([0, 2]), np.array([[0], [1]])]
    model.train_on_batch(np.zeros((2, 5), np.float32), targets)
    assert len(preparation._ready) == known


@pytest.mark.usefixtures("nothing_is_known")
def test_running_statistics_stay_while_training_is_rehearsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = Input((4, 5, 2))
    shared = BatchNorm()
    model = Model(x, Dense(3)(Flatten()(Add()([shared(BatchNorm()(x)), shared(ReLU()(x))]))))
    before, real, seen = model.get_weights(), Executor.gradients, list[bool]()

    def gradients(executor: Any, *arguments: Any) -> Any:
        try:
            return real(executor, *arguments)
        finally:
            same = zip(model.get_weights(), before, strict=True)
            seen.append(all((a == b).all() for a, b in same))

    monkeypatch.setattr(Executor, "gradients", gradients)
    model.compile_kernels()
    assert len(seen) > 1
    assert all(seen)
    model.train_on_batch(np.ones((2, 4, 5, 2), np.float32), np.array([0, 2]))
    assert not seen[-1]


@pytest.mark.usefixtures("nothing_is_known")
def test_a_preparation_that_was_interrupted_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    model, x = model_of("article"), np.zeros((2, 28, 28, 1), np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "compile_all", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                model.predict(x)
    assert not preparation._ready
    model.predict(x)
    assert len(preparation._ready) == 1


@pytest.mark.usefixtures("nothing_is_known")
def test_a_signal_handler_predicts_in_the_middle_of_a_rehearsal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, other = model_of("article"), model_of("small")
    x = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    expected, results, done = other.predict(x), [], threading.Event()

    def handler(*_: Any) -> None:
        results.append(other.predict(x))
        done.set()

    class AsItBegins:
        """The context of a rehearsal, in which a signal comes at once."""

        def __init__(self) -> None:
            self.inner = rehearsal.rehearsal()

        def __enter__(self) -> Any:
            requests = self.inner.__enter__()
            if not done.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                assert done.wait(60)
            return requests

        def __exit__(self, *error: Any) -> None:
            self.inner.__exit__(*error)

    monkeypatch.setattr(preparation, "rehearsal", AsItBegins)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        model.predict(x)
    finally:
        signal.signal(signal.SIGUSR1, before)
    np.testing.assert_array_equal(results, [expected])


@pytest.mark.usefixtures("nothing_is_known")
def test_what_there_is_no_memory_for_is_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError("no memory")

    x = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    expected = model_of("article").predict(x)
    preparation._ready.clear()
    monkeypatch.setattr(memory.mmap, "mmap", full)
    np.testing.assert_array_equal(model_of("article").predict(x), expected)


MEMORY = """
from pathlib import Path
from fastcnn.models import nets
from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.models.execution import Executor, preparation

preparation.is_recorded = lambda net: False
model = Sequential(nets.resnet8(), (32, 32, 3), seed=0)
model.compile_kernels(training=False)
preparation._ready.clear()

def most():
    (line,) = [l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l]
    return int(line.split()[1]) / 1024

before = most()
model.compile_kernels()
print(most() - before)
"""


def test_a_rehearsal_takes_little_memory() -> None:
    model_of("resnet8").compile_kernels()
    assert float(python("-c", MEMORY).stdout) < 100  # megabytes


# --- two processes --------------------------------------------------------------------------------


def requests_of(name: str) -> list[Request]:
    model = model_of(name)
    executor = model._executor(model._trunk(model._predicting()))
    assert executor is not None
    like = [np.zeros((1, *model.inputs[0].shape), np.uint8)]
    return preparation.rehearse(executor._layers, lambda x: executor.probabilities(x[0]), like)


def test_each_kernel_of_a_net_has_a_recipe_that_makes_it() -> None:
    for request in (*requests_of("wide"), *requests_of("resnet8")):
        recipe = compile_ahead.recipe_of(request.kernel)
        assert recipe is not None, request.kernel
        assert compile_ahead.kernel_of(recipe) is request.kernel


FIRST = """
import os, sys
import numpy as np
from fastcnn.models import nets
from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import compile_ahead

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


STARTS_A_HELPER = """
import sys
import numpy as np
from fastcnn.models import nets
from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import compile_ahead

real = compile_ahead._start_helper
def start(left):
    helper = real(left)
    print(helper._process.pid, flush=True)
    if "waits" in sys.argv:
        assert real(left) is None  # there is one already
        sys.stdin.read()
    else:
        helper._process.wait(120)  # does the whole list
    return helper
compile_ahead._start_helper = start
model = Sequential(nets.article(), (28, 28, 1), seed=0)
x = np.zeros((1, 28, 28, 1), np.uint8)
model.train_on_batch(x, [0]) if "waits" in sys.argv else model.predict(x)
"""


def test_a_helper_runs_no_file_of_the_current_folder(tmp_path: Path) -> None:
    for name in ("fastcnn", "numba", "numpy", "pickle", "threading"):
        (tmp_path / f"{name}.py").write_text(f"open('{name} ran', 'w')")
    script = tmp_path / "scripts" / "main.py"
    script.parent.mkdir()
    script.write_text(STARTS_A_HELPER)
    variables = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "FASTCNN_NUM_THREADS": "2"}
    run([sys.executable, script], cwd=tmp_path, env=environment(**variables), check=True)
    assert list(tmp_path.glob("* ran")) == []
    assert len(list((tmp_path / "cache" / "fastcnn").glob("*.nbc"))) > 3
    assert list((tmp_path / "cache" / "fastcnn").glob("*.lock")) == []


def test_a_helper_ends_with_its_parent_and_has_none_beside_it(tmp_path: Path) -> None:
    variables = {"NUMBA_CACHE_DIR": str(tmp_path), "FASTCNN_NUM_THREADS": "2"}
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_HELPER, "waits"],
        env=environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        helper = int(process.stdout.readline())
        sleep(0.3)
        process.kill()
    end = monotonic() + 8  # the list takes longer
    with suppress(ProcessLookupError):
        while monotonic() < end and not _is_zombie(helper):
            os.kill(helper, 0)
            sleep(0.05)
    assert monotonic() < end


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # ended, or no such files on this system
        return False


def test_a_program_with_python_inside_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = requests_of("wide")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was started"))
    for name in ("/usr/bin/uwsgi", "", None, "/opt/application.exe"):
        monkeypatch.setattr(sys, "executable", name)
        assert compile_ahead._start_helper(requests) is None


# --- what is said ---------------------------------------------------------------------------------


def test_compiling_that_lasts_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCNN_COMPILE_NOTICE", "1")
    monkeypatch.setattr("fastcnn.engine.numba.runtime.compile_notice.AFTER", 0.01)
    notice = Notice()
    notice.begin()
    notice.end()
    assert capsys.readouterr().err == ""
    with notice.silenced():
        notice.begin()
        assert not notice._running
    assert capsys.readouterr().err == ""
    for _ in range(2):
        notice.begin()
        for timer, _ in notice._running:
            timer.join()
        notice.end()
    line = capsys.readouterr().err
    assert line.startswith("fastcnn: compiling kernels for this processor; once")
    assert line.count("\n") == 1
    monkeypatch.setenv("FASTCNN_COMPILE_NOTICE", "0")
    silent = Notice()
    silent.begin()
    assert not silent._running


# --- a folder that is read-only -------------------------------------------------------------------


def test_kernels_are_read_from_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, own = tmp_path / "image", tmp_path / "own"
    (image / "fastcnn").mkdir(parents=True)
    real = kernel_cache.tempfile.TemporaryFile

    def refused(**more: Any) -> Any:
        if more["dir"] in (image / "fastcnn", kernel_cache.PACKAGE / "__pycache__"):
            raise PermissionError
        return real(**more)

    monkeypatch.setattr(kernel_cache.tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", str(image))
    monkeypatch.setattr("numba.misc.appdirs.AppDirs.user_cache_dir", str(own))
    folders = kernel_cache.cache_folders.__wrapped__()
    assert folders.read[0] == image / "fastcnn"
    assert folders.write == own
    assert folders.read[-1] == own


def test_a_folder_that_this_user_may_not_look_into_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred, stat = tmp_path / "barred", Path.stat

    def refused(self: Path, *arguments: Any, **more: Any) -> Any:
        if barred in self.parents:
            raise PermissionError(13, "Permission denied")
        return stat(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refused)
        patch.setattr(Path, "mkdir", refused)
        patch.setattr(kernel_cache, "PACKAGE", barred)
        patch.setattr(kernel_cache.config, "CACHE_DIR", str(barred))
        patch.setattr("numba.misc.appdirs.AppDirs.user_cache_dir", str(barred / "own"))
        assert kernel_cache.cache_folders.__wrapped__().read == ()
    folders = kernel_cache.Folders((tmp_path,), tmp_path)
    monkeypatch.setattr(compile_ahead, "cache_folders", lambda: folders)
    (tmp_path / compile_ahead._record_name("net")).write_text("x" * 5000)
    assert not compile_ahead.is_recorded("net")


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    command = "import os; os.umask(0o022); import numpy as np, fastcnn; fastcnn.relu(np.ones(3))"
    python("-c", command, NUMBA_CACHE_DIR=str(tmp_path))
    (path,) = (tmp_path / "fastcnn").glob("*.nbc")
    assert path.stat().st_mode & 0o777 == 0o644


# --- the command ----------------------------------------------------------------------------------


def test_the_command_compiles_what_a_model_needs(tmp_path: Path) -> None:
    def compile_(*arguments: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "fastcnn", "compile", *arguments, check=False,
                      NUMBA_CACHE_DIR=str(tmp_path / "cache"))  # fmt: skip

    model = Sequential([Flatten(), Dense(3)], (4, 5, 1), seed=0)
    model.save(tmp_path / "net.safetensors")
    first = compile_(str(tmp_path / "net.safetensors"), "--predict-only")
    assert first.returncode == 0, first.stderr
    assert "kernels compiled in" in first.stdout
    assert f"kept in {tmp_path / 'cache' / 'fastcnn'}" in first.stdout
    again = compile_(str(tmp_path / "net.safetensors"), "--predict-only")
    assert "all there" in again.stdout
    wrong = compile_("--net", "alexnet")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--net must be one of" in wrong.stderr


def test_no_program_outside_of_rehearsals_has_steps_without_address() -> None:
    model = model_of("article")
    model.predict(np.zeros((3, 28, 28, 1), np.uint8))
    executor = model._executor(model._trunk(model._predicting()))
    assert executor is not None
    assert executor._only_segment is not None
    for programs in executor._only_segment._programs._programs.values():
        assert programs.forward.steps.reshape(-1, program.STEP_WORDS)[:, 0].all()
