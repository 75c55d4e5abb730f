"""With NUMBA_DISABLE_JIT=1 kernels are plain Python and NumPy, for debuggers and coverage."""

from __future__ import annotations

from processes import python

AGREES = """
import numpy as np
from fastcnn.proof.check import EXACT_MODES, REFERENCE, call
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import cases
from fastcnn.engine.numba.contraction import contraction
from fastcnn.engine.numba.conv import loops as convolution_loops
from fastcnn.engine.numba.tiles.products import rank1

for plain in (rank1, convolution_loops._forward_rows, contraction.contract):
    assert type(plain).__name__ == "function", plain

seen = {}
for case in cases(quick=True):
    if case.mode not in EXACT_MODES:
        continue
    arrays = make_arrays(case, 5)
    elements = sum(array.size for array in arrays.values())
    if elements > 4000:
        continue
    with np.errstate(invalid="ignore"):
        reference = call(case.problem, arrays, REFERENCE)
        fast = call(case.problem, arrays, "numba")
    for a, b in zip(fast, reference, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=case.name)
    seen.setdefault(case.problem.op, set()).add(case.problem.label)
assert len(seen["conv2d"]) > 8 and "depthwise" in seen["conv2d_backward"], seen
print(*sorted(seen))
"""


def test_kernels_run_without_the_compiler() -> None:
    operations = python("-c", AGREES, NUMBA_DISABLE_JIT="1").stdout.split()
    pools = {f"{kind}_pool2d" for kind in ("avg", "max", "min")}
    merges = {"add", "subtract", "multiply", "maximum", "concatenate"}
    assert set(operations) == {
        "conv2d", "conv2d_backward", "conv2d_input_gradient", "conv2d_filter_gradient",
        "conv2d_bias_gradient", "winograd", "winograd_dx", "winograd_dw",
        "dense", "dense_backward", "relu", "relu_backward",
        "leaky_relu", "leaky_relu_backward", "dropout", "zero_pad2d", "zero_pad2d_backward",
        *pools, *(f"{pool}_backward" for pool in pools),
        "clipped_relu", "clipped_relu_backward", "hard_sigmoid", "hard_sigmoid_backward",
        "prelu", "prelu_backward",
        "conv2d_transpose", "conv2d_transpose_backward", "winograd_transpose", "crop2d",
        "crop2d_backward", "permute", "permute_backward", "depth_to_space", "space_to_depth",
        "resize2d", "resize2d_backward",
        *merges, *(f"{merge}_backward" for merge in merges),
    }  # fmt: skip


LOOPS = """
import numpy as np
from fastcnn.engine import numba as kernels, naive
from fastcnn.core.geometry import conv_geometry, pool_geometry
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.conv import direct, winograd
from fastcnn.engine.numba.pool import chooser as pooling
from fastcnn.engine.numba.pool.operations import argmax_gradient

rng = np.random.default_rng(0)
x, w = (rng.integers(-3, 4, shape) * 1.0 for shape in ((2, 5, 6, 4), (3, 2, 2, 6)))
g = conv_geometry(x.shape, w.shape, stride=(2, 1), padding=1, groups=2)
dy = rng.integers(-3, 4, g.output_shape) * 1.0
pairs = [
    (engine.conv2d(x, w, None, "relu", g), engine.conv2d_input_gradient(dy, w, g),
     engine.conv2d_filter_gradient(dy, x, g), engine.conv2d_bias_gradient(dy, g),
     engine.softmax(x.reshape(-1, 4)), engine.cross_entropy(x.reshape(-1, 4), np.arange(60) % 4))
    for engine in (kernels, naive)
]
for fast, reference in zip(*pairs, strict=True):
    np.testing.assert_allclose(fast, reference, rtol=1e-12)

# Sums in parts, and convolution with pooling, which only programs of whole nets ask for.
x, w, b = (rng.integers(-3, 4, shape) * 1.0 for shape in ((3, 259), (259, 2), 2))
for n in (1, 3):
    np.testing.assert_array_equal(kernels.dense(x[:n], w, b, None), naive.dense(x[:n], w, b, None))
x, w, b = (np.float32(rng.integers(-3, 4, shape)) for shape in ((2, 5, 31, 2), (2, 2, 2, 6), 6))
g = conv_geometry(x.shape, w.shape)
to, plan = direct.pooled_plan(g, 4, argmax=True)
y, places = np.zeros((2, 2, 2, 15, 6), np.float32)
given = x.reshape(-1), w.reshape(-1), b, y.reshape(-1), places.reshape(-1), True, plan.numbers
plan.function(np.zeros(0, np.int64), 0, 0, plan.items, *given)
whole, pool = naive.conv2d(x, w, b, "relu", g), pool_geometry((2, 4, 30, 6), 2, stride=2)
np.testing.assert_array_equal(y, naive.max_pool2d(whole, pool))
dy, dx = y[::-1].copy(), np.full((2, 4, 30, 6), np.nan, np.float32)
function, items = pooling.argmax_gradient_kernel(pool, 4)
given = dy.reshape(-1), places.reshape(-1), dx.reshape(-1), arrays.record(pool)
function(np.zeros(0, np.int64), 0, 0, items, *given)
whole = naive.conv2d(x, w, b, None, g)
np.testing.assert_array_equal(dx, naive.max_pool2d_backward(dy, whole, pool))
w = np.float32(rng.integers(-3, 4, (3, 3, 2, 6)))
g = conv_geometry(x.shape, w.shape, padding="same")
y, places = winograd.conv2d_pooled_with_indices(x, w, b, None, g)
whole, pool = winograd.conv2d(x, w, b, None, g), pool_geometry(g.output_shape, 2, stride=2)
np.testing.assert_array_equal(y, naive.max_pool2d(whole, pool))
dy = rng.integers(-3, 4, y.shape).astype(np.float32)
dx = argmax_gradient(dy, places, pool)
np.testing.assert_array_equal(dx, naive.max_pool2d_backward(dy, whole, pool))
"""


def test_loops_and_rows_run_without_the_compiler() -> None:
    python("-c", LOOPS, NUMBA_DISABLE_JIT="1")
