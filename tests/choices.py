"""Named problems, and which kernel serves each on every instruction set.

    python tests/choices.py     prints the table as it is chosen now

A choice is the kernel's name, the sides of its register tile (rows × vectors × lanes) and what
else it is made for; "none" where no kernel serves the problem at once and the caller does it
otherwise. Each pair is that of float32 and that of float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fastcnn.core.geometry import conv_geometry, pool_geometry
from fastcnn.engine.numba.contraction import column_sums
from fastcnn.engine.numba.contraction.packing import transpose_kernel
from fastcnn.engine.numba.conv import direct, winograd_gradient, winograd_plan
from fastcnn.engine.numba.dense.chooser import (
    dense_input_plan,
    dense_weight_plan,
    forward_decision,
)
from fastcnn.engine.numba.pool import chooser as pooling
from fastcnn.engine.numba.runtime.instruction_sets import choice_of, choosing_for

Problem = Callable[[int], Any]
"""The kernel for numbers of so many bytes, or None."""


def conv(x: tuple[int, ...], w: tuple[int, ...], **parameters: Any) -> Problem:
    """A convolution."""
    g = conv_geometry(x, w, **parameters)
    return lambda itemsize: direct.forward_plan(g, itemsize)[1].function


def conv_dx(x: tuple[int, ...], w: tuple[int, ...], **parameters: Any) -> Problem:
    """The gradient of its input; of the first phase, where it has a stride."""
    g = conv_geometry(x, w, **parameters)
    return lambda itemsize: direct.input_gradient_plan(g, itemsize).phases[0].function


def conv_dw(x: tuple[int, ...], w: tuple[int, ...], **parameters: Any) -> Problem:
    """The gradient of its filters."""
    g = conv_geometry(x, w, **parameters)
    return lambda itemsize: direct.filter_sum_plan(g, itemsize)[1].function


def conv_pooled(x: tuple[int, ...], w: tuple[int, ...], **parameters: Any) -> Problem:
    """A convolution with its 2×2 max-pooling."""
    g = conv_geometry(x, w, **parameters)

    def kernel(itemsize: int) -> Any:
        result = direct.pooled_plan(g, itemsize)
        return result and result[1].function

    return kernel


def conv_packed(x: tuple[int, ...], w: tuple[int, ...], **parameters: Any) -> Problem:
    """A convolution on packed filters; None where they are better read as they are."""
    g = conv_geometry(x, w, **parameters)

    def kernel(itemsize: int) -> Any:
        _, decision = direct.forward_decision(g, itemsize, packable=True)
        return decision.plan.function if decision.name == "packed filters" else None

    return kernel


def conv_winograd(x: tuple[int, ...], w: tuple[int, ...], **parameters: Any) -> Problem:
    """A convolution by Winograd's filtering."""
    g = conv_geometry(x, w, **parameters)
    return lambda itemsize: winograd_plan.forward_plan(g, itemsize).kernel


def conv_winograd_dw(x: tuple[int, ...], w: tuple[int, ...], **parameters: Any) -> Problem:
    """The gradient of the filters by Winograd's filtering."""
    g = conv_geometry(x, w, **parameters)
    return lambda itemsize: winograd_gradient.gradient_plan(g, itemsize).kernel


def dense(n: int, inputs: int, outputs: int) -> Problem:
    """A dense layer."""
    return lambda size: forward_decision(n, inputs, outputs, size, alone=True).plan.function


def dense_dx(n: int, inputs: int, outputs: int) -> Problem:
    """The gradient of its input."""
    return lambda itemsize: dense_input_plan(n, inputs, outputs, itemsize)[0].function


def dense_dw(n: int, inputs: int, outputs: int) -> Problem:
    """The gradient of its weights."""
    return lambda itemsize: dense_weight_plan(n, inputs, outputs, itemsize).function


def pool(kind: str, x: tuple[int, ...], size: int, **parameters: Any) -> Problem:
    """A pooling."""
    g = pool_geometry(x, size, **parameters)
    return lambda itemsize: pooling.forward_kernel(kind, g, itemsize)[0]


def pool_dx(kind: str, x: tuple[int, ...], size: int, **parameters: Any) -> Problem:
    """Its gradient."""
    g = pool_geometry(x, size, **parameters)
    return lambda itemsize: pooling.gradient_kernel(kind, g, itemsize)[0]


def transposed(width: int, columns: int) -> Problem:
    """Filters with input and output channels exchanged."""
    return lambda itemsize: transpose_kernel(width, columns, itemsize)


def bias(columns: int) -> Problem:
    """The gradient of a bias."""
    return lambda itemsize: column_sums.column_sums_for(columns, itemsize)[0]


class Row(NamedTuple):
    """A problem, and the choices for float32 and float64 on each instruction set."""

    problem: Problem
    avx512: tuple[str, str]
    avx2: tuple[str, str]
    sse2: tuple[str, str]
    neon: tuple[str, str]


INSTRUCTION_SETS = Row._fields[1:]
ITEMSIZES = {"float32": 4, "float64": 8}

ROWS = {
    "article: 3×3 to 8 on 28×28×1, one image": Row(
        conv((1, 28, 28, 1), (3, 3, 1, 8)),
        avx512=("lines 1×8: 1 line of 14", "lines 1×8: 1 line of 14"),
        avx2=(
            "lines 1×8: 1 line of 8 or 6, 3 taps",
            "lines 1×4: 1 line of 8 or 6, 3 taps",
        ),
        sse2=(
            "lines 1×4: 1 line of 8 or 6, 3 taps",
            "lines 1×2: 1 line of 8 or 6, 3 taps",
        ),
        neon=("lines 2×4: 1 line of 14", "lines 2×2: 1 line of 14"),
    ),
    "article: the same, pooled": Row(
        conv_pooled((1, 28, 28, 1), (3, 3, 1, 8)),
        avx512=("lines_pooled 1×8: 2 lines of 14", "none"),
        avx2=("lines_pooled 1×8: 2 lines of 6 or 4, 3 taps", "none"),
        sse2=("lines_pooled 1×4: 2 lines of 6 or 4, 3 taps", "none"),
        neon=("lines_pooled 1×4: 2 lines of 14", "none"),
    ),
    "article: gradient of the filters": Row(
        conv_dw((1, 28, 28, 1), (3, 3, 1, 8)),
        avx512=("lines 1×8: 3 lines of 3", "lines 1×8: 3 lines of 3"),
        avx2=("lines 1×8: 3 lines of 3", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("contraction 14×2×4", "contraction 14×2×2"),
    ),
    "article: pooling's gradient, 26×26×8": Row(
        pool_dx("max", (1, 26, 26, 8), 2, stride=2),
        avx512=(
            "extreme_gradient_rows 1×8: largest, kh=2, kw=2",
            "extreme_gradient_rows 1×8: largest",
        ),
        avx2=(
            "extreme_gradient_rows 1×8: largest, kh=2, kw=2",
            "extreme_gradient_rows 1×4: largest",
        ),
        sse2=(
            "extreme_gradient_rows 1×4: largest, kh=2, kw=2",
            "extreme_gradient_rows 4×2: largest",
        ),
        neon=(
            "extreme_gradient_rows 1×4: largest, kh=2, kw=2",
            "extreme_gradient_rows 4×2: largest",
        ),
    ),
    "article: dense, 1352 to 10, one sample": Row(
        dense(1, 1352, 10),
        avx512=("packed 4×5×16: columns=10", "packed 4×5×8: columns=10"),
        avx2=("packed 2×5×8: columns=10", "packed 2×5×4: columns=10"),
        sse2=("packed 2×5×4: columns=10", "packed 2×5×2: columns=10"),
        neon=("packed 4×5×4: columns=10", "packed 4×5×2: columns=10"),
    ),
    "article: gradient of the dense input": Row(
        dense_dx(1, 1352, 10),
        avx512=("few_samples 1×8", "few_samples 1×8"),
        avx2=("few_samples 1×8", "few_samples 1×4"),
        sse2=("few_samples 1×4", "few_samples 1×2"),
        neon=("few_samples 1×4", "few_samples 1×2"),
    ),
    "article: gradient of the dense weights": Row(
        dense_dw(1, 1352, 10),
        avx512=("few_steps 2×16", "few_steps 2×8"),
        avx2=("few_steps 2×8", "few_steps 4×4"),
        sse2=("few_steps 4×4", "few_steps 4×2"),
        neon=("few_steps 4×4", "few_steps 4×2"),
    ),
    "LeNet-5: 5×5 to 6 on 32×32×1": Row(
        conv((8, 32, 32, 1), (5, 5, 1, 6)),
        avx512=("lines 1×8: 1 line of 14", "lines 1×8: 1 line of 14"),
        avx2=(
            "lines 1×8: 1 line of 8 or 6, 5 taps",
            "lines 1×4: 1 line of 8 or 6, 5 taps",
        ),
        sse2=(
            "lines 1×4: 1 line of 8 or 6, 5 taps",
            "lines 1×2: 1 line of 8 or 6, 5 taps",
        ),
        neon=("lines 2×4: 1 line of 14", "lines 2×2: 1 line of 14"),
    ),
    "LeNet-5: the same, pooled": Row(
        conv_pooled((8, 32, 32, 1), (5, 5, 1, 6)),
        avx512=("lines_pooled 1×8: 2 lines of 14", "none"),
        avx2=("lines_pooled 1×8: 2 lines of 4, 5 taps", "none"),
        sse2=("lines_pooled 1×4: 2 lines of 4, 5 taps", "none"),
        neon=("lines_pooled 1×4: 2 lines of 14", "none"),
    ),
    "LeNet-5: gradient of the first filters": Row(
        conv_dw((8, 32, 32, 1), (5, 5, 1, 6)),
        avx512=("lines 1×8: 5 lines of 5, long_sums", "lines 1×8: 5 lines of 5, long_sums"),
        avx2=("contraction 6×1×8: masked, long_sums", "contraction 6×2×4: masked, long_sums"),
        sse2=("contraction 6×2×4: masked, long_sums", "contraction 6×2×2: masked, long_sums"),
        neon=("contraction 14×2×4: masked, long_sums", "contraction 14×2×2: masked, long_sums"),
    ),
    "LeNet-5: 5×5 to 16 on 14×14×6": Row(
        conv((8, 14, 14, 6), (5, 5, 6, 16)),
        avx512=("contraction 14×1×16: masked", "contraction 14×2×8"),
        avx2=("contraction 6×2×8", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("contraction 14×2×4", "contraction 14×2×2"),
    ),
    "LeNet-5: the same, pooled (10 pixels)": Row(
        conv_pooled((8, 14, 14, 6), (5, 5, 6, 16)),
        avx512=("lines_pooled 1×16: 2 lines of 10", "none"),
        avx2=("none", "none"),
        sse2=("none", "none"),
        neon=("lines_pooled 1×4: 2 lines of 10", "none"),
    ),
    "LeNet-5: gradient of the second's input": Row(
        conv_dx((8, 14, 14, 6), (5, 5, 6, 16)),
        avx512=("lines 1×8: 1 line of 14", "contraction 14×1×8: masked"),
        avx2=("contraction 6×1×8: masked", "contraction 6×2×4: masked"),
        sse2=("contraction 6×2×4: masked", "contraction 6×2×2: masked"),
        neon=("contraction 14×2×4: masked", "contraction 14×2×2: masked"),
    ),
    "LeNet-5: dense, 400 to 120, 8 samples": Row(
        dense(8, 400, 120),
        avx512=("contraction 14×2×16: masked", "contraction 14×2×8: masked"),
        avx2=("contraction 6×2×8: masked", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("contraction 14×2×4", "contraction 14×2×2"),
    ),
    "LeNet-5: dense, 120 to 84, one sample": Row(
        dense(1, 120, 84),
        avx512=("contraction 1×8×16: masked", "contraction 1×8×8: masked"),
        avx2=("contraction 1×8×8: masked", "contraction 1×8×4: masked"),
        sse2=("contraction 1×8×4: masked", "contraction 1×8×2: masked"),
        neon=("contraction 1×8×4: masked", "contraction 1×8×2: masked"),
    ),
    "LeNet-5: dense, 84 to 10, 8 samples": Row(
        dense(8, 84, 10),
        avx512=("contraction 14×1×16: masked", "contraction 14×2×8: masked"),
        avx2=("contraction 6×2×8: masked", "contraction 6×2×4: masked"),
        sse2=("contraction 6×2×4: masked", "contraction 6×2×2: masked"),
        neon=("contraction 14×2×4: masked", "contraction 14×2×2: masked"),
    ),
    "ResNet-8: 3×3 to 16 on 32×32×3": Row(
        conv((8, 32, 32, 3), (3, 3, 3, 16), padding="same"),
        avx512=("lines 1×16: 1 line of 8", "lines 2×8: 1 line of 8"),
        avx2=("contraction 6×2×8", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("lines 2×4: 1 line of 8", "lines 2×2: 1 line of 8"),
    ),
    "ResNet-8: 3×3 to 32, stride 2, 32×32×16": Row(
        conv((8, 32, 32, 16), (3, 3, 16, 32), stride=2, padding="same"),
        avx512=("contraction 14×2×16", "contraction 14×2×8"),
        avx2=("contraction 6×2×8", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("contraction 14×2×4", "contraction 14×2×2"),
    ),
    "ResNet-8: 1×1 to 32, stride 2, 32×32×16": Row(
        conv((8, 32, 32, 16), (1, 1, 16, 32), stride=2),
        avx512=("lines 2×16: 1 line of 14", "lines 2×8: 1 line of 14"),
        avx2=("contraction 6×2×8", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("lines 2×4: 1 line of 14", "lines 2×2: 1 line of 14"),
    ),
    "ResNet-8: its gradient of the input": Row(
        conv_dx((8, 32, 32, 16), (1, 1, 16, 32), stride=2),
        avx512=("lines 1×16: 1 line of 8", "lines 2×8: 1 line of 8"),
        avx2=("contraction 6×2×8", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("lines 2×4: 1 line of 8", "lines 2×2: 1 line of 8"),
    ),
    "ResNet-8: 3×3 on 8×8×64 by Winograd": Row(
        conv_winograd((8, 8, 8, 64), (3, 3, 64, 64), padding="same"),
        avx512=("winograd 14×2×16: m=4, r=3", "winograd 14×2×8: m=4, r=3"),
        avx2=("winograd 6×2×8: m=4, r=3", "winograd 6×2×4: m=4, r=3"),
        sse2=("winograd 6×2×4: m=4, r=3", "winograd 6×2×2: m=4, r=3"),
        neon=("winograd 14×2×4: m=4, r=3", "winograd 14×2×2: m=4, r=3"),
    ),
    "ResNet-8: its gradient of the filters": Row(
        conv_winograd_dw((8, 8, 8, 64), (3, 3, 64, 64), padding="same"),
        avx512=("winograd_gradient 14×2×16: m=4, r=3", "winograd_gradient 14×2×8: m=4, r=3"),
        avx2=("winograd_gradient 6×2×8: m=4, r=3", "winograd_gradient 6×2×4: m=4, r=3"),
        sse2=("winograd_gradient 6×2×4: m=4, r=3", "winograd_gradient 6×2×2: m=4, r=3"),
        neon=("winograd_gradient 14×2×4: m=4, r=3", "winograd_gradient 14×2×2: m=4, r=3"),
    ),
    "ResNet-8: 3×3 on 32×32×16 by Winograd": Row(
        conv_winograd((8, 32, 32, 16), (3, 3, 16, 16), padding="same"),
        avx512=("winograd 14×1×16: m=4, r=3", "winograd 14×2×8: m=4, r=3"),
        avx2=("winograd 6×2×8: m=4, r=3", "winograd 6×2×4: m=4, r=3"),
        sse2=("winograd 6×2×4: m=4, r=3", "winograd 6×2×2: m=4, r=3"),
        neon=("winograd 14×2×4: m=4, r=3", "winograd 14×2×2: m=4, r=3"),
    ),
    "ResNet-8: its gradient of 16 filters": Row(
        conv_winograd_dw((8, 32, 32, 16), (3, 3, 16, 16), padding="same"),
        avx512=("winograd_gradient 14×1×16: m=4, r=3", "winograd_gradient 14×2×8: m=4, r=3"),
        avx2=("winograd_gradient 6×2×8: m=4, r=3", "winograd_gradient 6×2×4: m=4, r=3"),
        sse2=("winograd_gradient 6×2×4: m=4, r=3", "winograd_gradient 6×2×2: m=4, r=3"),
        neon=("winograd_gradient 14×2×4: m=4, r=3", "winograd_gradient 14×2×2: m=4, r=3"),
    ),
    "VGG: 3×3 to 64 on 224×224×3": Row(
        conv((1, 224, 224, 3), (3, 3, 3, 64), padding="same"),
        avx512=("lines 2×16: 1 line of 14", "lines 2×8: 1 line of 14"),
        avx2=("contraction 6×2×8", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("lines 2×4: 1 line of 14", "lines 2×2: 1 line of 14"),
    ),
    "VGG: 3×3 to 64 on 224×224×64, pooled": Row(
        conv_pooled((1, 224, 224, 64), (3, 3, 64, 64), padding="same"),
        avx512=("lines_pooled 1×16: 2 lines of 14", "none"),
        avx2=("lines_pooled 1×8: 2 lines of 4", "none"),
        sse2=("lines_pooled 1×4: 2 lines of 4", "none"),
        neon=("lines_pooled 1×4: 2 lines of 14", "none"),
    ),
    "VGG: 3×3 to 512 on 14×14×512": Row(
        conv((1, 14, 14, 512), (3, 3, 512, 512), padding="same"),
        avx512=("contraction 14×2×16: long_sums", "contraction 14×2×8: long_sums"),
        avx2=("contraction 6×2×8: long_sums", "contraction 6×2×4: long_sums"),
        sse2=("contraction 6×2×4: long_sums", "contraction 6×2×2: long_sums"),
        neon=("contraction 14×2×4: long_sums", "contraction 14×2×2: long_sums"),
    ),
    "VGG: the same on packed filters": Row(
        conv_packed((1, 14, 14, 512), (3, 3, 512, 512), padding="same"),
        avx512=("none", "none"),
        avx2=("contraction 6×2×8: long_sums", "contraction 6×2×4: long_sums"),
        sse2=("contraction 6×2×4: long_sums", "contraction 6×2×2: long_sums"),
        neon=("none", "none"),
    ),
    "VGG: pooling, 14×14×512": Row(
        pool("max", (1, 14, 14, 512), 2, stride=2),
        avx512=("extreme_rows 4×16: largest, kh=2, kw=2", "extreme_rows 4×8: largest"),
        avx2=("extreme_rows 4×8: largest, kh=2, kw=2", "extreme_rows 4×4: largest"),
        sse2=("extreme_rows 4×4: largest, kh=2, kw=2", "extreme_rows 4×2: largest"),
        neon=("extreme_rows 4×4: largest, kh=2, kw=2", "extreme_rows 4×2: largest"),
    ),
    "VGG: dense, 25088 to 4096, one sample": Row(
        dense(1, 25088, 4096),
        avx512=("products 1×16×16", "products 1×16×8"),
        avx2=("products 1×16×8", "products 1×16×4"),
        sse2=("products 1×16×4", "products 1×16×2"),
        neon=("products 1×16×4", "products 1×16×2"),
    ),
    "VGG: dense, 4096 to 1000, 64 samples": Row(
        dense(64, 4096, 1000),
        avx512=("products 14×2×16", "products 14×2×8"),
        avx2=("products 6×2×8", "products 6×2×4"),
        sse2=("products 6×2×4", "products 6×2×2"),
        neon=("products 14×2×4", "products 14×2×2"),
    ),
    "3×3 to 32 on 34×34×1": Row(
        conv((8, 34, 34, 1), (3, 3, 1, 32)),
        avx512=("lines 2×16: 1 line of 8", "lines 2×8: 1 line of 8"),
        avx2=("lines 1×8: 1 line of 8, 3 taps", "lines 1×4: 1 line of 8, 3 taps"),
        sse2=("lines 1×4: 1 line of 8, 3 taps", "lines 1×2: 1 line of 8, 3 taps"),
        neon=("lines 2×4: 1 line of 8", "lines 2×2: 1 line of 8"),
    ),
    "1×1 to 24 on 7×7×40": Row(
        conv((2, 7, 7, 40), (1, 1, 40, 24)),
        avx512=("lines 2×16: 1 line of 14", "lines 2×8: 1 line of 14"),
        avx2=("contraction 6×2×8: masked", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("lines 2×4: 1 line of 14", "lines 2×2: 1 line of 14"),
    ),
    "5×5 to 9 in 3 groups on 17×17×6": Row(
        conv((2, 17, 17, 6), (5, 5, 2, 9), groups=3),
        avx512=("contraction 14×1×4: masked", "contraction 14×1×4: masked"),
        avx2=("contraction 6×1×4: masked", "contraction 6×1×4: masked"),
        sse2=("contraction 6×1×4: masked", "contraction 6×2×2: masked"),
        neon=("contraction 14×1×4: masked", "contraction 14×2×2: masked"),
    ),
    "depthwise 3×3 on 14×14×32": Row(
        conv((1, 14, 14, 32), (3, 3, 1, 32), groups=32, padding="same"),
        avx512=("depthwise 14×16: step_taps=3", "depthwise 14×8: step_taps=3"),
        avx2=("depthwise 6×8: step_taps=3", "depthwise 6×4: step_taps=3"),
        sse2=("depthwise 6×4: step_taps=3", "depthwise 6×2: step_taps=3"),
        neon=("depthwise 14×4: step_taps=3", "depthwise 14×2: step_taps=3"),
    ),
    "depthwise: gradient of the input": Row(
        conv_dx((1, 14, 14, 32), (3, 3, 1, 32), groups=32, padding="same"),
        avx512=("depthwise 14×16: step_taps=3", "depthwise 14×8: step_taps=3"),
        avx2=("depthwise 6×8: step_taps=3", "depthwise 6×4: step_taps=3"),
        sse2=("depthwise 6×4: step_taps=3", "depthwise 6×2: step_taps=3"),
        neon=("depthwise 14×4: step_taps=3", "depthwise 14×2: step_taps=3"),
    ),
    "depthwise: gradient of the filters": Row(
        conv_dw((1, 14, 14, 32), (3, 3, 1, 32), groups=32, padding="same"),
        avx512=(
            "contraction 14×1×16: masked, elementwise",
            "contraction 14×1×8: masked, elementwise",
        ),
        avx2=("contraction 6×1×8: masked, elementwise", "contraction 6×1×4: masked, elementwise"),
        sse2=("contraction 6×1×4: masked, elementwise", "contraction 6×1×2: masked, elementwise"),
        neon=("contraction 14×1×4: masked, elementwise", "contraction 14×1×2: masked, elementwise"),
    ),
    "dense, 300 to 7, 100 samples": Row(
        dense(100, 300, 7),
        avx512=("lines 1×8: 1 line of 8", "contraction 14×1×8: masked"),
        avx2=("contraction 6×1×8: masked", "contraction 6×2×4: masked"),
        sse2=("contraction 6×2×4: masked", "contraction 6×2×2: masked"),
        neon=("contraction 14×2×4: masked", "contraction 14×2×2: masked"),
    ),
    "dense, 512 to 20, 8 samples": Row(
        dense(8, 512, 20),
        avx512=("packed 4×5×16: columns=20", "packed 4×5×8: columns=20"),
        avx2=("packed 2×5×8: columns=20", "packed 2×5×4: columns=20"),
        sse2=("packed 2×5×4: columns=20", "contraction 6×2×2"),
        neon=("packed 4×5×4: columns=20", "contraction 14×2×2"),
    ),
    "dense, 300 to 1, one sample": Row(
        dense(1, 300, 1),
        avx512=("packed 4×2×16: columns=1", "packed 4×2×8: columns=1"),
        avx2=("packed 4×2×8: columns=1", "packed 4×2×4: columns=1"),
        sse2=("packed 4×2×4: columns=1", "packed 4×2×2: columns=1"),
        neon=("packed 4×2×4: columns=1", "packed 4×2×2: columns=1"),
    ),
    "dense, 100 to 26, one sample": Row(
        dense(1, 100, 26),
        avx512=("contraction 4×2×16: masked", "contraction 1×8×8: masked"),
        avx2=("contraction 1×8×8: masked", "contraction 1×8×4: masked"),
        sse2=("contraction 1×8×4: masked", "contraction 1×8×2: masked"),
        neon=("contraction 1×8×4: masked", "contraction 1×8×2: masked"),
    ),
    "dense, 128 to 512, one sample": Row(
        dense(1, 128, 512),
        avx512=("contraction 1×16×16", "contraction 1×16×8"),
        avx2=("contraction 1×8×8", "contraction 1×8×4"),
        sse2=("contraction 1×8×4", "contraction 1×8×2"),
        neon=("contraction 1×16×4", "contraction 1×16×2"),
    ),
    "dense, 100 to 40, 100 samples": Row(
        dense(100, 100, 40),
        avx512=("contraction 14×2×16: masked", "contraction 14×2×8: masked"),
        avx2=("contraction 6×2×8: masked", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("contraction 14×2×4", "contraction 14×2×2"),
    ),
    "dense: gradient of the input, 100 samples": Row(
        dense_dx(100, 100, 40),
        avx512=("contraction 14×2×16: masked", "contraction 14×2×8: masked"),
        avx2=("contraction 6×2×8: masked", "contraction 6×2×4: masked"),
        sse2=("contraction 6×2×4: masked", "contraction 6×2×2"),
        neon=("contraction 14×2×4: masked", "contraction 14×2×2"),
    ),
    "dense: gradient of the weights, 100 samples": Row(
        dense_dw(100, 100, 40),
        avx512=("contraction 14×2×16: masked", "contraction 14×2×8: masked"),
        avx2=("contraction 6×2×8: masked", "contraction 6×2×4"),
        sse2=("contraction 6×2×4", "contraction 6×2×2"),
        neon=("contraction 14×2×4", "contraction 14×2×2"),
    ),
    "max-pooling 3×3 on 15×15×96": Row(
        pool("max", (2, 15, 15, 96), 3, stride=2),
        avx512=("extreme_rows 4×16: largest, kh=3, kw=3", "extreme_rows 4×8: largest"),
        avx2=("extreme_rows 4×8: largest, kh=3, kw=3", "extreme_rows 4×4: largest"),
        sse2=("extreme_rows 4×4: largest, kh=3, kw=3", "extreme_rows 4×2: largest"),
        neon=("extreme_rows 4×4: largest, kh=3, kw=3", "extreme_rows 4×2: largest"),
    ),
    "max-pooling 2×2 on 28×28×6": Row(
        pool("max", (2, 28, 28, 6), 2, stride=2),
        avx512=("extreme_rows 1×8: largest, kh=2, kw=2", "extreme_rows 1×8: largest"),
        avx2=("extreme_rows 1×8: largest, kh=2, kw=2", "extreme_rows 1×4: largest"),
        sse2=("extreme_rows 1×4: largest, kh=2, kw=2", "extreme_rows 4×2: largest"),
        neon=("extreme_rows 1×4: largest, kh=2, kw=2", "extreme_rows 4×2: largest"),
    ),
    "average pooling 2×2 on 28×28×20": Row(
        pool("average", (2, 28, 28, 20), 2, stride=2),
        avx512=("average_rows 1×16", "average_rows 4×8"),
        avx2=("average_rows 4×8", "average_rows 4×4"),
        sse2=("average_rows 4×4", "average_rows 4×2"),
        neon=("average_rows 4×4", "average_rows 4×2"),
    ),
    "filters transposed, 32 columns": Row(
        transposed(32, 32),
        avx512=("transpose_taps 16", "transpose_taps 8"),
        avx2=("transpose_taps 8", "transpose_taps 4"),
        sse2=("transpose_taps 4", "transpose_taps 2"),
        neon=("transpose_taps 4", "transpose_taps 2"),
    ),
    "gradient of a bias of 6": Row(
        bias(6),
        avx512=("column_sums 8", "column_sums 8"),
        avx2=("column_sums 8", "column_sums 4"),
        sse2=("column_sums 4", "column_sums 2"),
        neon=("column_sums 4", "column_sums 2"),
    ),
    "3×3 to 6 on 9×14×1, pooled (12 pixels)": Row(
        conv_pooled((2, 9, 14, 1), (3, 3, 1, 6)),
        avx512=("none", "none"),
        avx2=("lines_pooled 1×8: 2 lines of 6, 3 taps", "none"),
        sse2=("lines_pooled 1×4: 2 lines of 6, 3 taps", "none"),
        neon=("none", "none"),
    ),
}


def choices(problem: Problem, isa: str) -> tuple[str, str]:
    """What is chosen for float32 and float64."""
    with choosing_for(isa):
        kernels = [problem(itemsize) for itemsize in ITEMSIZES.values()]
    of_float32, of_float64 = ("none" if k is None else str(choice_of(k)) for k in kernels)
    return of_float32, of_float64


def differences(rows: dict[str, Row]) -> Iterator[str]:
    """Where the choice is another than the row expects."""
    for name, row in rows.items():
        for isa in INSTRUCTION_SETS:
            pairs = zip(ITEMSIZES, getattr(row, isa), choices(row.problem, isa), strict=True)
            for dtype, expected, choice in pairs:
                if choice != expected:
                    yield f"{name}, {isa}, {dtype}: {choice}, not {expected}"


def main() -> None:
    """Print the table."""
    for name, row in ROWS.items():
        print(name)
        for isa in INSTRUCTION_SETS:
            of_float32, of_float64 = choices(row.problem, isa)
            print(f"    {isa:8}{of_float32:48}{of_float64}")


if __name__ == "__main__":
    main()
