"""What is made by the first call is made once, however many threads make that call."""

from __future__ import annotations

import copy
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from threading import Barrier, Event, Thread
from typing import Any

import numpy as np
import pytest
from processes import python
from tiny import net, stripes

from fastcnn import Sequential
from fastcnn.engine.numba.runtime.calls import step_address
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.layers import Dense, Layer, Shape

pytestmark = pytest.mark.usefixtures("compiling_ahead")

THREADS = 8


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads change places as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The results, or errors, of calls that begin together on threads of their own."""
    barrier, results = Barrier(len(calls)), [None] * len(calls)

    def run(i: int, call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            results[i] = call()
        except Exception as error:
            results[i] = error  # type: ignore[call-overload]

    threads = [Thread(target=run, args=one) for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("engine", [None, "im2col"])
def test_threads_that_predict_first_get_one_model(engine: str | None) -> None:
    x, y = stripes(6)
    expected = Sequential(net(), (9, 8), seed=0, engine=engine).predict(x)
    for _ in range(60):
        model = Sequential(net(), seed=0, engine=engine)
        calls = [lambda model=model: model.predict(x)] * THREADS
        copies = [lambda model=model: copy.deepcopy(model).predict(x)] * 2
        for result in at_once(*calls, *copies):
            np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(model.predict(x), expected)
        for layer in model.layers:
            for array in layer.parameters.values():
                assert np.shares_memory(array, model._weights.parameters)
        assert len(model._executors) == (engine is None)
        model.evaluate(x, y)


@pytest.mark.usefixtures("hurried")
def test_threads_that_train_and_predict_first_share_one_model() -> None:
    x, y = stripes(6)
    for _ in range(20):
        model = Sequential(net(), seed=0)
        results = at_once(
            lambda model=model: model.fit(x, y, verbose=0, seed=1),
            lambda model=model: model.train_on_batch(x, y),
            *[lambda model=model: model.predict(x)] * 3,
            lambda model=model: model.predict(x[:, :8]),
            lambda model=model: model.train_on_batch(x[:, :8], y),
        )
        for result in results:
            if isinstance(result, Exception):
                assert isinstance(result, ValueError)
                assert (
                    "samples of shape" in str(result)
                    or "the shape (N, 9, 8" in str(result)
                    or ("the shape (N, 8, 8" in str(result))
                )
        assert model.built
        for layer in model.layers:
            for array in layer.parameters.values():
                assert np.shares_memory(array, model._weights.parameters)


class Told(Dense):
    """A layer that calls a function while it is built."""

    def __init__(self, units: int = 3) -> None:
        super().__init__(units)

    def build(self, input_shape: Shape, rng: np.random.Generator, dtype: Any = np.float32) -> Shape:
        shape = super().build(input_shape, rng, dtype)
        Told.call()
        return shape

    call: Callable[[], object] = staticmethod(lambda: None)


Layer.registry.pop("Told")  # other tests take every layer that is known


def layers() -> list[Layer]:
    return [Dense(4), Told(5), Dense(3)]


def test_a_building_that_fails_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((2, 6), np.float32)
    expected = Sequential(layers(), (6,), seed=0).predict(x)
    model = Sequential(layers(), seed=0)

    def fail() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Told, "call", staticmethod(fail))
    with pytest.raises(KeyboardInterrupt):
        model.predict(x)
    assert not model.built
    assert all(not layer.parameters and layer.input_shape is None for layer in model.layers)
    monkeypatch.setattr(Told, "call", staticmethod(lambda: None))
    np.testing.assert_array_equal(model.predict(x), expected)


def test_a_call_from_inside_of_the_building_gets_the_same_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As from a signal handler: it must not wait for itself."""
    x = np.ones((2, 6), np.float32)
    model, results = Sequential(layers(), seed=0), []

    def once() -> None:
        monkeypatch.setattr(Told, "call", staticmethod(lambda: None))
        results.append(model.predict(x))

    monkeypatch.setattr(Told, "call", staticmethod(once))
    results.append(model.predict(x))
    assert model.built
    np.testing.assert_array_equal(model.predict(x), results[-1])
    for layer in model.layers:
        for array in layer.parameters.values():
            assert np.shares_memory(array, model._weights.parameters)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_while_another_thread_builds_builds_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.ones((2, 6), np.float32)
    expected = Sequential(layers(), (6,), seed=0).predict(x)
    model, inside, go_on = Sequential(layers(), seed=0), Event(), Event()
    builder = threading.get_ident()

    def wait() -> None:
        if threading.get_ident() != builder:
            inside.set()
            assert go_on.wait(30)

    monkeypatch.setattr(Told, "call", staticmethod(wait))
    thread = Thread(target=model.predict, args=(x,))
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if not child:
        try:
            os._exit(0 if np.array_equal(model.predict(x), expected) else 1)
        finally:
            os._exit(2)
    try:
        for _ in range(600):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            Event().wait(0.05)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise AssertionError("the child waits for a thread that it does not have")
    finally:
        go_on.set()
        thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(model.predict(x), expected)


LLVM_AT_FORK = """
import os, signal, threading, time
from llvmlite import binding
from llvmlite.binding.ffi import lib
import fastcnn.engine.numba.runtime.jit

def ask():
    with lib._lock:
        asking.set()
        time.sleep(0.5)

asking = threading.Event()
threading.Thread(target=ask).start()
asking.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    binding.parse_assembly("")
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_forked_while_another_thread_asks_llvm_can_compile() -> None:
    assert python("-W", "ignore", "-c", LLVM_AT_FORK).stdout == "0\n"


def test_a_step_of_arguments_that_are_no_operands_is_refused() -> None:
    @kernel
    def fill(start: int, stop: int, x: Any, value: Any) -> None:
        for i in range(start, stop):
            x[i] = value

    assert step_address(fill, np.zeros(1), 1)
    for samples in ((np.zeros((2, 2)), 1), (np.zeros(1), 1.5)):
        with pytest.raises(TypeError, match="a step's arguments must be C-contiguous arrays of"):
            step_address(fill, *samples)


def test_code_whose_address_was_handed_out_stays() -> None:
    """Of two threads that make one kernel at once a cache keeps one; the other's steps may run."""

    @kernel
    def twice(start: int, stop: int, x: Any, y: Any) -> None:
        for i in range(start, stop):
            y[i] = x[i] + x[i]

    samples = np.zeros(1, np.float32), np.zeros(1, np.float32)
    step_address(twice, *samples)
    (compiled,) = twice.overloads.values()  # type: ignore[attr-defined]
    library = weakref.ref(compiled.library)
    del compiled, twice
    gc.collect()
    assert library() is not None
