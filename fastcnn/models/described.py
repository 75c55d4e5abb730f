"""``DescribedNet``: a net with what belongs to it beside its layers, and travels with it in files.

That is how bytes are scaled, how a picture is prepared, what it was trained on, and the names of
its classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fastcnn.core.quoting import quoted
from fastcnn.data.class_names import checked_names
from fastcnn.data.known_inputs import knowledge_from
from fastcnn.data.pixel_scaling import CENTRED, Scaling, check_channels
from fastcnn.data.preparation import Preparation
from fastcnn.data.scaling import Kind
from fastcnn.models.net import Net
from fastcnn.nn.layers import Shape


class DescribedNet(Net):
    """A net with what belongs to it; :class:`fastcnn.Model` says more."""

    @property
    def trained_on(self) -> Kind | tuple[Kind | None, ...] | None:
        """ "uint8" for bytes, "floats" for other numbers, or None before a training.

        A tuple of these for several inputs.
        """
        return self._knowledge.kind

    @trained_on.setter
    def trained_on(self, kind: Kind | tuple[Kind | None, ...] | None) -> None:
        scaling = self._knowledge.scaling
        self._knowledge = knowledge_from(kind, None, self._graph.inputs, scaling)

    @property
    def scaling(self) -> Scaling:
        """How bytes are scaled: a :class:`fastcnn.Scaling`, by default ``x / 255 − 0.5``.

        Set it before the training, or where the weights of a net come from a training with another
        scaling. It counts from the next call on, for training and prediction, and files keep it.

        Raises ``TypeError`` where it is set to anything else, ``ValueError`` for another number of
        channels than the model's inputs have, ``AttributeError`` while a ``fit`` runs.

        >>> import numpy as np
        >>> from fastcnn import Scaling, Sequential
        >>> from fastcnn.nn.layers import Dense
        >>> model = Sequential([Dense(1, kernel_initializer="ones")], (2,))
        >>> model.loss, model.scaling = "mse", Scaling()
        >>> model.predict(np.array([[0, 255]], np.uint8))
        array([[1.]], dtype=float32)
        """
        return self._knowledge.scaling

    @scaling.setter
    def scaling(self, value: Scaling) -> None:
        if not isinstance(value, Scaling):
            raise TypeError(
                f"scaling must be a fastcnn.Scaling such as {CENTRED!r}, got {quoted(value)}"
            )
        if self._fits == os.getpid():
            raise AttributeError("scaling of a model cannot be set while a fit runs")
        for shape in self._known_shapes() if self.built else ():
            check_channels(value, shape)
        self._knowledge.scaling = value

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of their numbers; None where they have no names.

        ``fit`` takes them from the images of :func:`fastcnn.load_images`; files keep them, and the
        command line prints them.

        Raises ``TypeError`` and ``ValueError`` where it is set to names that are empty, equal, or
        of another number than the model has classes.

        >>> from fastcnn import Sequential
        >>> from fastcnn.nn.layers import Dense
        >>> model = Sequential([Dense(2)], (3,))
        >>> model.classes = ["cat", "dog"]
        >>> model.classes[1]
        'dog'
        """
        return self._classes

    @classes.setter
    def classes(self, value: Sequence[str] | None) -> None:
        self._classes = checked_names(value, self._output_shapes() if self.built else None)

    @property
    def preparation(self) -> Preparation | None:
        """How a picture becomes an input of this model, for ``fastcnn.data.pictures.prepare``.

        The first ``fit`` on images of bytes finds it in them; set it where that is wrong. None
        where nothing is known, as in a model that was trained on floats.

        Raises ``TypeError`` where it is set to anything else.

        >>> from fastcnn import Sequential
        >>> from fastcnn.nn.layers import Dense, Flatten
        >>> model = Sequential([Flatten(), Dense(2)], (28, 28, 1))
        >>> model.preparation = Preparation(background="dark")
        """
        return self._preparation

    @preparation.setter
    def preparation(self, value: Preparation | None) -> None:
        if value is not None and not isinstance(value, Preparation):
            raise TypeError(f"preparation must be a fastcnn.Preparation or None, got {value!r}")
        self._preparation = value

    def class_name(self, number: int) -> str:
        """The name of a class, or its number as text where it has none."""
        names: Any = self._classes
        return names[number] if names is not None and 0 <= number < len(names) else str(number)


def only_input(model: Net) -> Shape:
    """The shape of a built model's input, for programs that give a model pictures.

    Raises ``ValueError`` for several inputs or outputs.
    """
    shapes = model._known_shapes()
    if len(shapes) > 1 or len(model._graph.outputs) > 1:
        raise ValueError(
            f"the model must have one input and one output, got {len(shapes)} inputs and "
            f"{len(model._graph.outputs)} outputs; use its predict and evaluate in Python"
        )
    return shapes[0]


def picture_shape(model: DescribedNet) -> tuple[int, int, int]:
    """The shape (H, W, C) of the pictures that a built classifier takes.

    Raises ``ValueError`` for a model that takes something else, whose scaling is not known, or that
    gives no classes.
    """
    shape, outputs = only_input(model), model._output_shapes()[0]
    if model.trained_on == "floats":
        raise ValueError(
            "the model must have been trained on bytes (uint8 images), whose scaling it knows; "
            f"this one was trained on floats. If these were {model.scaling}, set model.trained_on "
            "= 'uint8' in Python, and save the model"
        )
    if len(shape) != 3 or len(outputs) != 1:
        raise ValueError(
            f"the model must take images and give classes, this one takes {shape} and gives "
            f"{outputs}"
        )
    height, width, channels = shape
    return height, width, channels
