"""Which implementation serves a call, and what each engine takes for it."""

# %% A 3×3 convolution of 32 images, as in the middle of a small net.
from time import perf_counter

import numpy as np

import fastcnn

rng = np.random.default_rng(0)
x = rng.standard_normal((8, 28, 30, 16)).astype(np.float32)
w = rng.standard_normal((3, 3, 16, 32)).astype(np.float32)

# %% Every call can say what serves it, and why nothing before it does.
print(fastcnn.explain("conv2d", x, w, padding="same"))

# %% The naive engine is written to be read, the others to be fast.
y = {}
for engine in reversed(fastcnn.engines()):
    images = x[:1] if engine == "naive" else x
    fastcnn.conv2d(images, w, padding="same", engine=engine)  # compiles
    start = perf_counter()
    y[engine] = fastcnn.conv2d(images, w, padding="same", engine=engine)
    seconds = (perf_counter() - start) / len(images)
    print(f"{engine:6}  {seconds * 1e3:9.3f} ms an image")

# %% They agree within rounding. Winograd's filtering rounds more than the direct sum.
for engine, result in y.items():
    print(f"{engine:6}  largest difference {np.abs(result[:1] - y['naive']).max():.1e}")
direct = fastcnn.conv2d(x[:1], w, padding="same", algorithm="direct")
print(f"direct  largest difference {np.abs(direct - y['naive']).max():.1e}")
