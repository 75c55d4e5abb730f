"""The first call of a net compiles all kernels that it may need, for batches of any size.

Which kernels serve a layer depends on the number of samples. So the first prediction, and the first
training step, are rehearsed with batches of many sizes
(:mod:`fastcnn.engine.numba.runtime.rehearsal`), and what is missing is compiled
(:mod:`fastcnn.engine.numba.runtime.compile_ahead`). Nets with layers, losses or optimizers of the
user's own are left alone, because a rehearsal would call them.
With the environment variable ``FASTCNN_COMPILE_AHEAD=0`` each call compiles only the kernels that
it needs itself, which is less work for programs that make many nets and use each of them once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.core.settings import get_math, get_num_threads
from fastcnn.core.undisturbed import NoThreadError, go_on, in_own_thread
from fastcnn.engine.numba.runtime.compile_ahead import Progress, compile_all, is_recorded, record
from fastcnn.engine.numba.runtime.instruction_sets import registers
from fastcnn.engine.numba.runtime.rehearsal import Request, rehearsal
from fastcnn.engine.numba.runtime.threads import request_driver
from fastcnn.nn.layers import Composite, Layer, Residual, repr_without_name

# Batch sizes between which the choice of kernels was seen to change, and some beyond them.
COUNTS = (*range(1, 11), 12, 16, 17, 24, 28, 32, 48, 64, 100, 128, 200, 256, 320, 512)
# Zeros take memory only where NumPy writes to them, so a rehearsal takes less than 100 MB.
_SMALL_BATCH = 10  # batches of at most so many samples decide most choices
_MOST_OF_SMALL = 1 << 27  # most bytes of one layer's activations in a small batch
_MOST_OF_LARGE = 1 << 25  # the same in a larger batch

_ready: set[tuple[object, ...]] = set()
"""The keys of nets that were prepared in this process, see :func:`net_key`."""


def compiles_ahead() -> bool:
    """Whether first calls are prepared: always, unless ``FASTCNN_COMPILE_AHEAD`` is 0."""
    return os.environ.get("FASTCNN_COMPILE_AHEAD") != "0"


def net_key(layers: Sequence[Layer], *purpose: object) -> tuple[object, ...]:
    """The key of a net: all that its kernels depend on, beside batch size and processor."""
    settings = get_math(), get_num_threads() > 1, registers().isa
    return (*map(repr_without_name, layers), layers[0].input_shape, *settings, *purpose)


def is_built_in(part: object) -> bool:
    """Whether calling it in a rehearsal runs no code of a user's."""
    if isinstance(part, Residual):
        return all(map(is_built_in, (*part.layers, *part.shortcut)))
    if isinstance(part, Composite):  # only the layers inside run
        return all(is_built_in(layer) for _, layer in part.inner_layers())
    return is_own(type(part))


def prepare(
    layers: Sequence[Layer],
    run: Callable[[Sequence[Array]], object],
    like: Sequence[Array],
    *purpose: object,
    progress: Progress | None = None,
) -> int:
    """Compile what ``run`` may need for batches of any size; the number of missing kernels.

    Args:
        layers: the net's layers.
        run: takes samples through the net; only rehearsals call it.
        like: samples of each input, of the shape and dtype that it takes.
        purpose: other values on which the kernels depend.
        progress: is called with the number of kernels that are compiled, and with the number of
            all kernels.
    """
    key = net_key(layers, *(one.dtype.char for one in like), *purpose)
    if key in _ready:
        return 0
    count = 0
    if not is_recorded(repr(key)):
        requests = rehearse(layers, run, like)
        count = compile_all(requests, progress)
        record(repr(key), requests)
    _ready.add(key)
    return count


def rehearse(
    layers: Sequence[Layer], run: Callable[[Sequence[Array]], object], like: Sequence[Array]
) -> list[Request]:
    """The kernels that ``run`` needs for ``len(like[0])`` samples, then for batches of other sizes.

    Batches for which there is no memory are left out.
    """
    sample = max(prod(one.output_shape or ()) for one in layers) * 8
    sample += sum(prod(one.shape[1:]) for one in like) * 8
    most = {n: _MOST_OF_SMALL if n <= _SMALL_BATCH else _MOST_OF_LARGE for n in COUNTS}
    first = len(like[0])
    counts = [first, *(n for n in COUNTS if n * sample <= most[n] and n != first)]
    result: list[Request] = []

    def rehearse_all() -> None:
        with rehearsal() as requests, np.errstate(all="ignore"):
            for count in counts:
                go_on()
                with suppress(MemoryError):
                    run([np.zeros((count, *one.shape[1:]), one.dtype) for one in like])
            request_driver()
            result.extend(requests.values())

    # In a thread of its own from whichever thread, because signal handlers and finalizers run in
    # the caller's at any moment, and may predict. Without a thread nothing is compiled ahead.
    with suppress(NoThreadError):
        in_own_thread(rehearse_all)
    return result
