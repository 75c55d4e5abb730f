"""``Sequential``: layers in a row, the simplest model; and ``load_model``, for all models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from fastcnn.core.files import FilePath
from fastcnn.models import model_files
from fastcnn.models.graph import chain
from fastcnn.models.model import Model
from fastcnn.models.net import Net
from fastcnn.nn.layers import Layer, Shape, checked_layers, image_shape
from fastcnn.train import checkpoint


class Sequential(Model):
    """A stack of layers: a :class:`fastcnn.Model` in which each layer takes the one before it.

    The model copies the layers that it is given; its own are ``model.layers``. A layer that is not
    built gets new parameters. A layer of another model keeps the values of its parameters and
    running statistics, converted to ``dtype``. Either model then trains without the other::

        maps = Sequential(model.layers[:2], model.input_shape)  # maps.predict(x): feature maps
        other = Sequential([*model.layers[:-1], Dense(5)], model.input_shape)  # transfer

    One list of new layers makes any number of models, each with parameters of its own. To begin
    anew from the layers of a trained model, write them out again.

    Attributes are those of :class:`fastcnn.Model`.

    Args:
        layers: the layers, from input to output. None may be there twice, also not inside of a
            ``Residual``.
        input_shape: of one sample, (H, W, C), (H, W) for one channel, or (features,). With it the
            model is built at once, else by the first ``fit``, ``train_on_batch`` or ``predict``.
        seed: of ``model.rng``, which draws everything random; None for a fresh one.
        dtype: "float32" or "float64", of parameters and computations.
        engine: the engine that runs the layers, or None for the fastest.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value; layers that do not fit:
            which one, what it got and what it needs; a built layer whose parameters have other
            shapes than this input needs.

    Example:
        >>> import numpy as np
        >>> from fastcnn.nn.layers import Conv2D, Dense, Flatten, MaxPool2D
        >>> layers = [Conv2D(8, 3), MaxPool2D(), Flatten(), Dense(10)]
        >>> model = Sequential(layers, (28, 28, 1), seed=0)
        >>> model.predict(np.zeros((2, 28, 28), np.uint8)).shape
        (2, 10)
        >>> model.summary()
        layer         output shape  parameters  MFLOP
        Conv2D(8, 3)  (26, 26, 8)           80  0.097
        MaxPool2D()   (13, 13, 8)
        Flatten()     (1352,)
        Dense(10)     (10,)             13,530  0.027
        total                           13,610  0.124
    """

    input_shape: Shape | None
    output_shape: Shape | None

    def __init__(
        self,
        layers: Iterable[Layer],
        input_shape: Sequence[int] | None = None,
        *,
        seed: int | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        engine: str | None = None,
    ) -> None:
        graph = chain(checked_layers("layers", layers))
        Net.__init__(self, graph, seed=seed, dtype=dtype, engine=engine)
        if input_shape is not None:
            self.build(input_shape)

    def build(self, input_shape: Sequence[int]) -> None:
        """Infer all shapes and draw the parameters; for a model without ``input_shape``.

        Parameters of layers that came built keep their values. If it fails, nothing has changed.

        Raises ``ValueError`` for layers that do not fit, and where the model is built already;
        ``MemoryError`` for parameters that do not fit into the machine's memory.
        """
        self._build_anew((image_shape(input_shape),))

    def __repr__(self) -> str:
        layers = "".join(f"\n    {layer!r}," for layer in self.layers)
        return f"Sequential([{layers}\n], input_shape={self.input_shape})"


def load_model(path: FilePath) -> Model:
    """The model of a file that ``save`` or ``save_checkpoint`` wrote.

    Args:
        path: the file.

    Returns:
        The model, built, with its weights, loss and scaling: a :class:`fastcnn.Sequential` if its
        layers are in a row, else a :class:`fastcnn.Model`.

    Raises:
        ModelFileError: the file is truncated, damaged or edited, of an unknown version, or has
            layers that this version does not know. Nothing is allocated for its arrays before
            their shapes and dtypes fit the architecture.
        OSError: the file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from fastcnn.nn.layers import Dense
        >>> model = Sequential([Dense(2)], (3,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.safetensors")
        ...     again = load_model(f"{folder}/model.safetensors")
        >>> bool((again.predict(np.eye(3)) == model.predict(np.eye(3))).all())
        True
    """
    file = checkpoint.read(path)
    return model_files.model_from(file, Model if "graph" in file.model else Sequential)
