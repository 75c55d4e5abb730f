"""Feature maps of a trained net, and its layers in another one."""

# %% A net that tells the digits 0 to 4 apart.
import numpy as np

import fastcnn
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D

(x, y), (x_test, y_test) = fastcnn.load_mnist()
low, high = y < 5, y >= 5
layers = [
    Conv2D(16, 3, activation="relu"),
    MaxPool2D(),
    Conv2D(32, 3, activation="relu"),
    MaxPool2D(),
    Flatten(),
    Dense(5),
]
base = fastcnn.Sequential(layers, input_shape=(28, 28, 1), seed=0)
base.fit(x[low][:4000], y[low][:4000], epochs=2, optimizer="adam", seed=0)

# %% What its first layers see of one digit.
maps = fastcnn.Sequential(base.layers[:2], input_shape=(28, 28, 1))
seen = maps.predict(x_test[:1])
print("feature maps:", seen.shape, "of which", int((seen.max(axis=(0, 1, 2)) > 0).sum()), "respond")

# %% Its layers in a net for the digits 5 to 9, with few examples. The first net stays as it is.
before = base.get_weights()
other = fastcnn.Sequential([*base.layers[:-1], Dense(5)], input_shape=(28, 28, 1), seed=1)
new = fastcnn.Sequential([*layers[:-1], Dense(5)], input_shape=(28, 28, 1), seed=1)
few, labels = x[high][:200], y[high][:200] - 5
test, truth = x_test[y_test >= 5][:1000], y_test[y_test >= 5][:1000] - 5
for name, model in (("with trained layers", other), ("from the beginning", new)):
    model.fit(few, labels, epochs=5, optimizer="adam", seed=1, verbose=0)
    print(f"{name}: {model.evaluate(test, truth)['accuracy']:.1%} of the test digits")
assert all(np.array_equal(a, b) for a, b in zip(before, base.get_weights(), strict=True))
