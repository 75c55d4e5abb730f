"""What users of Keras and PyTorch look for on a model, and what a model here has instead."""

from __future__ import annotations

_FIT = "the optimizer, the loss and the metrics are arguments of fit"
_WEIGHTS = "model.get_weights() and model.set_weights(weights) copy all parameters"

INSTEAD = {
    "add": "a Sequential takes all of its layers at once: Sequential([Conv2D(8, 3), …])",
    "compile": f"there is nothing to compile, because {_FIT}",
    "eval": "predict and evaluate need no other mode",
    "fit_generator": "fit takes arrays, sequences and iterables of batches",
    "forward": "model.predict(x) computes the outputs",
    "load_state_dict": "fastcnn.load_weights(model, path) reads the file of a PyTorch net",
    "load_weights": "fastcnn.load_weights(model, path) reads weights from a file",
    "parameters": f"each layer has a dict of its parameters, and {_WEIGHTS}",
    "save_weights": "model.save(path) writes the whole model",
    "state_dict": f"{_WEIGHTS}; model.save(path) writes the whole model",
    "to_json": "model.save(path) writes the whole model",
    "train": f"model.fit(x, y) trains, and {_FIT}",
    "trainable_variables": "layer.trainable says which layers are trained",
    "trainable_weights": "layer.trainable says which layers are trained",
    "weights": _WEIGHTS,
    "zero_grad": "each training step begins with gradients of zero",
}
"""Names of attributes, each with a sentence for the error."""


def no_attribute(owner: object, name: str) -> AttributeError:
    """The error for an attribute that a model does not have.

    >>> no_attribute([], "zero_grad")
    AttributeError("'list' object has no attribute 'zero_grad'; each training step begins with \
gradients of zero")
    """
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    advice = INSTEAD.get(name)
    return AttributeError(text if advice is None else f"{text}; {advice}", name=name, obj=owner)
