"""Register tiles as LLVM values: their types, and the intrinsics that kernels are written with.

Its files:

    types.py             the type of a tile, and of the offsets of its rows
    emitter.py           the LLVM instructions that intrinsics share
    loads_and_stores.py  tiles from memory and to memory
    rows.py              offsets of a tile's rows
    products.py          rank-1 updates, the innermost step of convolutions
    packed_products.py   rank-1 updates with few columns
    column_products.py   products column by column, for depthwise convolution
    totals.py            float64 totals of long sums
    arithmetic.py        activation, sums, quotients, a check for finite numbers
    pooling.py           maxima, minima and argmax indices
    transposes.py        squares of numbers, transposed in registers
    winograd.py          Winograd's transforms
"""
