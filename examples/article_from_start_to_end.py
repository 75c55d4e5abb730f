"""Both parts of the article "CNNs, Part 1 and 2" from start to end, with its own classes."""

# %% A filter slides over an image. The article's example: 4×4 pixels by a Sobel filter give 2×2.
import numpy as np

import fastcnn
from fastcnn import article

print(article.IMAGE)
print(article.VERTICAL_SOBEL)
print(article.four_by_four())

# %% On a digit the Sobel filters find edges; `fastcnn.plots.sobel()` draws them.
(x_train, y_train), (x_test, y_test) = fastcnn.load_mnist()
digit = x_test[0] / 255
for name, edges in (
    ("vertical", article.vertical_sobel(digit)), ("horizontal", article.horizontal_sobel(digit)),
):  # fmt: skip
    row, column = np.unravel_index(np.abs(edges).argmax(), edges.shape)
    print(f"the strongest {name} edge is at row {row}, column {column}")

# %% The three layers: convolution with 8 filters, pooling, and a softmax over ten digits.
rng = np.random.default_rng(0)
conv = article.Conv3x3(8, rng=rng)
pool = article.MaxPool2()
softmax = article.Softmax(13 * 13 * 8, 10, rng=rng)


def forward(image, label):
    """Probabilities, the cross-entropy, and whether the most probable digit is right."""
    out = conv.forward(image / 255 - 0.5)
    out = pool.forward(out)
    out = softmax.forward(out)
    return out, -np.log(out[label]), int(np.argmax(out) == label)


def test(count):
    """The losses of so many test digits, and which of them are right."""
    results = [forward(x_test[k], y_test[k])[1:] for k in range(count)]
    return zip(*results, strict=True)


# %% Part 1 ends with a net that has learned nothing: about one digit in ten is right.
losses, hits = test(200)
print(f"untrained: loss {np.mean(losses):.3f}, accuracy {np.mean(hits):.0%}")


# %% Part 2: the gradient goes back through the three layers, and each takes a step.
def train(image, label, rate=0.005):
    """One step on one digit; its loss, and whether it was right before the step."""
    out, loss, hit = forward(image, label)
    gradient = np.zeros(10)
    gradient[label] = -1 / out[label]
    gradient = softmax.backprop(gradient, rate)
    gradient = pool.backprop(gradient)
    conv.backprop(gradient, rate)
    return loss, hit


order = rng.permutation(len(x_train))[:2000]
total = right = 0
for step, k in enumerate(order, 1):
    loss, hit = train(x_train[k], y_train[k])
    total, right = total + loss, right + hit
    if step % 1000 == 0:
        print(f"[Step {step}] Past 1000 steps: Average Loss {total / 1000:.3f} | "
              f"Accuracy: {right / 10:.0f}%")  # fmt: skip
        total = right = 0

# %% On digits that it has never seen:
losses, hits = test(500)
print(f"trained: loss {np.mean(losses):.3f}, accuracy {np.mean(hits):.0%}")
assert np.mean(hits) > 0.7

# %% The same net on batches, in Keras's vocabulary, sees all digits in a second or two.
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D  # noqa: E402

layers = [Conv2D(8, 3), MaxPool2D(2), Flatten(), Dense(10)]
model = fastcnn.Sequential(layers, input_shape=(28, 28, 1), seed=0)
model.fit(x_train[:12000], y_train[:12000], epochs=2, optimizer="adam", seed=0)
print(f"on batches: accuracy {model.evaluate(x_test, y_test)['accuracy']:.1%}")
