"""A kernel of your own: written, proven against the specification, and timed."""

# %% The dense layer as three loops, compiled by Numba. The total in float64 is rounded once.
import numba
import numpy as np

import fastcnn
from fastcnn.bench import bench
from fastcnn.bench.problems import layer_problems
from fastcnn.engine.registry import replaced


@numba.njit(nogil=True)
def loops(x, w, b, relu, y):
    """x (N, I), w (I, O), b (O,) are read, y (N, O) is written."""
    for n in range(x.shape[0]):
        for k in range(w.shape[1]):
            total = np.float64(b[k])
            for i in range(x.shape[1]):
                total += np.float64(x[n, i]) * np.float64(w[i, k])
            y[n, k] = 0.0 if relu and total < 0 else total


def dense(x, w, b, activation):
    """The operation as the engines have it: arguments are checked, the result is a new array."""
    y = np.empty((len(x), w.shape[1]), x.dtype)
    bias = np.zeros(w.shape[1], x.dtype) if b is None else b
    loops(x, w, bias, activation == "relu", y)
    return y


# %% Within this context it is what the engine "im2col" does for ``fastcnn.dense``.
x, w = np.ones((2, 3), np.float32), np.full((3, 4), 2, np.float32)
with replaced("dense", "im2col", dense):
    print(fastcnn.dense(x, w, engine="im2col"))

# %% The proof, as by ``fastcnn compare --op dense --engine im2col``: integers to the last bit,
# other numbers within a bound that follows from what rounding may do, NaN and infinity, odd shapes.
with replaced("dense", "im2col", dense):
    report = fastcnn.compare(["dense"], ["im2col"], quick=True)
print(report)
assert report.ok


# %% A proof is worth something if it notices a mistake: here the last input is left out.
def wrong(x, w, b, activation):
    """The same without the last input."""
    return dense(x[:, :-1].copy(), w[:-1].copy(), b, activation)


with replaced("dense", "im2col", wrong):
    report = fastcnn.compare(["dense"], ["im2col"], quick=True)
print(f"{len(report.failures)} cases disagree, such as: {report.failures[0].problem}")
assert not report.ok

# %% The time, as by ``fastcnn bench --op dense``, on the last layer of the article's net.
layers = [one for one in layer_problems() if one.name == "dense/article 1352→10, batch 32"]
with replaced("dense", "im2col", dense):
    timed = bench(problems=layers, peer=[], seconds=0.05)
for entry in timed.entries:
    ours = next(figure for figure in entry.figures if figure.name == "im2col")
    gain = f"fastcnn is {entry.times(ours):.1f} × as fast"
    print(f"{entry.name:45} {ours.seconds * 1e6:9,.0f} µs, {gain}")
