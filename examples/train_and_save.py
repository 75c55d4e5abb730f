"""A net that trains, is saved, loaded and resumed."""

# %% MNIST's first digits, and a small net in Keras's vocabulary.
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fastcnn
from fastcnn.callbacks import EarlyStopping
from fastcnn.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
from fastcnn.optimizers import AdamW
from fastcnn.schedules import OneCycle

(x, y), (x_test, y_test) = fastcnn.load_mnist()
x, y, x_test, y_test = x[:4000], y[:4000], x_test[:1000], y_test[:1000]


def net():
    """The layers of a new net."""
    convolution = [Conv2D(16, 3, padding="same"), BatchNorm(), ReLU(), MaxPool2D()]
    return [*convolution, Flatten(), Dropout(0.2), Dense(10)]


model = fastcnn.Sequential(net(), input_shape=(28, 28, 1), seed=0)
model.summary()

# %% Three epochs. Bytes are scaled by the net, so images go in as they are.
history = model.fit(
    x,
    y,
    epochs=3,
    batch_size=64,
    optimizer=AdamW(OneCycle(0.005)),
    validation_split=0.1,
    callbacks=[EarlyStopping(patience=2)],
    seed=0,
)
print("test:", model.evaluate(x_test, y_test))

# %% A file, and the same predictions from it.
with TemporaryDirectory() as folder:
    path = Path(folder) / "digits.safetensors"
    model.save(path)
    again = fastcnn.load_model(path)
assert np.array_equal(again.predict(x_test[:5]), model.predict(x_test[:5]))

# %% A training that is resumed ends in the same bits as one that was not interrupted.
whole = fastcnn.Sequential(net(), input_shape=(28, 28, 1), seed=1)
whole.fit(x, y, epochs=2, optimizer="adam", seed=1, verbose=0)

with TemporaryDirectory() as folder:
    path = Path(folder) / "checkpoint.safetensors"
    first = fastcnn.Sequential(net(), input_shape=(28, 28, 1), seed=1)
    first.fit(x, y, epochs=1, optimizer="adam", seed=1, verbose=0)
    first.save_checkpoint(path)
    resumed = fastcnn.Sequential(net(), input_shape=(28, 28, 1))
    resumed.fit(x, y, epochs=2, resume=path, verbose=0)
pairs = zip(whole.get_weights(), resumed.get_weights(), strict=True)
print("the same bits:", all(np.array_equal(a, b) for a, b in pairs))
