"""A layer of your own, checked by central differences."""

# %% The layer: ``y = x / (1 + |x|)``. It keeps nothing; what backward needs is returned.
import numpy as np

import fastcnn
from fastcnn.layers import Conv2D, Dense, Flatten, Layer, MaxPool2D


class Softsign(Layer):
    """``x / (1 + |x|)``, number by number."""

    def infer(self, input_shape):
        """The output has the shape of the input."""
        return input_shape

    def forward(self, x, training, rng, engine):
        """The output, and the input for :meth:`backward`."""
        return x / (1 + np.abs(x)), x

    def backward(self, dy, saved, engine, needs_dx=True):
        """The gradient of the input; there are no parameters."""
        return dy / (1 + np.abs(saved)) ** 2, {}


# %% Its gradient agrees with central differences.
rng = np.random.default_rng(0)
layer, x = Softsign(), rng.standard_normal((2, 3, 4, 2))
dy = rng.standard_normal(x.shape)
_, saved = layer.forward(x, True, rng, None)
gradient, _ = layer.backward(dy, saved, None)
h = 1e-6
numeric = np.zeros_like(x)
for at in np.ndindex(x.shape):
    step = np.zeros_like(x)
    step[at] = h
    above, _ = layer.forward(x + step, True, rng, None)
    below, _ = layer.forward(x - step, True, rng, None)
    numeric[at] = ((above - below) * dy).sum() / (2 * h)
print("largest difference:", np.abs(gradient - numeric).max())
assert np.allclose(gradient, numeric, atol=1e-8)

# %% It trains in a net as any other layer.
(x, y), (x_test, y_test) = fastcnn.load_mnist()
layers = [Conv2D(8, 3), Softsign(), MaxPool2D(), Flatten(), Dense(10)]
model = fastcnn.Sequential(layers, input_shape=(28, 28, 1), seed=0)
model.fit(x[:2000], y[:2000], epochs=3, optimizer="adam", seed=0)
print("test:", model.evaluate(x_test[:1000], y_test[:1000]))

# %% ``explain`` says which layers run together, and that this one stands alone.
print(model.explain())
