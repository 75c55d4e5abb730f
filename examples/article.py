"""The article's net, one image at a time, on each engine."""

# %% Ten digits of MNIST, as the article has them: one channel, from -0.5 to 0.5.
from time import perf_counter

import numpy as np

import fastcnn
from fastcnn.article import Conv3x3, MaxPool2, Softmax

(_, _), (images, labels) = fastcnn.load_mnist()
digits = images[:10] / 255 - 0.5

# %% The net of the article. Its weights are drawn from the generator that it is given.
rng = np.random.default_rng(0)
conv, pool, softmax = Conv3x3(8, rng=rng), MaxPool2(), Softmax(13 * 13 * 8, 10, rng=rng)


def probabilities(image):
    """The probability of each digit, (10,)."""
    return softmax.forward(pool.forward(conv.forward(image)))


# %% Every engine computes the same numbers. The naive one is the specification.
results = {}
for engine in reversed(fastcnn.engines()):
    with fastcnn.use_engine(engine):
        probabilities(digits[0])  # kernels are compiled with the first call
        start = perf_counter()
        results[engine] = np.array([probabilities(image) for image in digits])
        seconds = perf_counter() - start
    difference = np.abs(results[engine] - results["naive"]).max()
    print(f"{engine:6}  {seconds * 1e3:6.1f} ms  largest difference {difference:.1e}")

# %% An untrained net guesses.
print("read as", results["naive"].argmax(axis=1), "and they are", labels[:10])
