"""What a net sees of a digit, and the digits that it reads wrong.

With the name of a file, such as ``python examples/what_the_net_sees.py seen.png``, the pictures go
into it. In a notebook each cell shows its picture. It needs Matplotlib (``fastcnn[plots]``).
"""

# %% A net that learns for some seconds.
import sys

from matplotlib.figure import Figure

import fastcnn
from fastcnn import plots
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D

(x, y), (x_test, y_test) = fastcnn.load_mnist()
layers = [Conv2D(8, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10)]
model = fastcnn.Sequential(layers, input_shape=(28, 28, 1), seed=0)
history = model.fit(
    x[:20000], y[:20000], epochs=3, optimizer="adam", seed=0,
    validation_data=(x_test[:1000], y_test[:1000]),
)  # fmt: skip
history.plot()

# %% The article's first example: two Sobel filters, and the edges that they find.
plots.sobel(x_test[0])

# %% The net has learned filters of its own. Each makes a feature map of the digit.
plots.filters(model, "conv2d")
plots.feature_maps(model, x_test[0], "conv2d")
maps = model.activations(x_test[:1], "conv2d")
print("feature maps:", maps.shape)

# %% The digits that a filter responds to most, and where.
plots.responses(model, x_test[:1000], "conv2d", channel=3)

# %% What the answer depends on: the gradient of the score, and what covering a part takes away.
plots.saliency(model, x_test[0])
plots.occlusion(model, x_test[0])

# %% Where it is wrong, and sure of it.
predicted = model.predict_classes(x_test)
print(f"{(predicted == y_test).mean():.2%} of the test digits are right")
plots.confusion_matrix(y_test, predicted)
plots.mistakes(model, x_test, y_test)

# %% Several pictures in one file.
page = Figure(figsize=(8, 6.4), layout="constrained")
top, bottom = page.subfigures(2, 1, height_ratios=[1.2, 1.6])
plots.feature_maps(model, x_test[0], "conv2d", figure=top)
plots.mistakes(model, x_test, y_test, figure=bottom, most=6)
for name in sys.argv[1:2]:
    page.savefig(name, dpi=100)
    print("written:", name)
