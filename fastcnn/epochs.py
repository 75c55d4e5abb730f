"""The training loop: epochs of batches, what is seen of them, and who is told.

It knows no layer: a step on a batch and the validation are the model's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from fastcnn.arguments import Array
from fastcnn.callbacks import StopTraining
from fastcnn.float_errors import Divergence
from fastcnn.on_demand import Samples
from fastcnn.progress import History, Progress

if TYPE_CHECKING:
    from fastcnn.model import Sequential

Augmentation = Callable[[Array, np.random.Generator], Array]
"""Images (N, H, W, C) of a batch and a generator, to new images of the same dtype."""


@dataclass(frozen=True, eq=False)
class Epochs:
    """Epochs over checked samples, from where a training stands.

    Attributes:
        model: who is trained; callbacks get it, and it draws what is random.
        at: where the training stands; moved on with each batch.
        images, targets: the samples.
        weights: how much the loss of each sample counts, or None.
        step: one step on a batch: the sum of its losses, and how many samples are right.
        validate: what is evaluated after each epoch, or None.
        counts: whether the loss has an accuracy.
        augment: applied to the images of each batch, or None.
    """

    model: Sequential
    at: Progress
    images: Samples
    targets: Array
    weights: Array | None
    step: Callable[[Array, Array, Array | None], tuple[float, float]]
    validate: Callable[[], dict[str, float]] | None
    counts: bool
    augment: Augmentation | None

    def run(self, epochs: int, verbose: bool) -> History:
        """Go on until so many epochs are done, counted from the training's beginning."""
        model, at, total = self.model, self.at, len(self.images)
        batches = -(-total // at.settings["batch_size"])
        at.optimizer.expect(epochs * batches)
        model.stop_training = False
        logs: dict[str, float] = {}
        begin = {"epochs": epochs, "batches": batches, "samples": total, "epoch": at.epoch}
        for callback, (name, state) in zip(at.callbacks, at.saved_states(), strict=True):
            callback.on_train_begin(model, begin)
            if name == type(callback).__name__:
                callback.restore(state)
        try:
            while at.epoch < epochs and not model.stop_training:
                started = perf_counter()
                self._epoch()
                if at.batch < batches:
                    break  # stopped on the way
                logs = self._means(total)
                if self.validate is not None:
                    logs |= {f"val_{name}": value for name, value in self.validate().items()}
                logs |= {"learning_rate": at.rate, "seconds": perf_counter() - started}
                at.history.append(logs)
                epoch = at.epoch
                at.epoch, at.batch, at.loss_sum, at.correct = epoch + 1, 0, 0.0, 0.0
                if verbose:
                    print(_line(epoch, epochs, logs), flush=True)
                self._tell("on_epoch_end", epoch, logs)
        finally:
            for callback in at.callbacks:
                callback.on_train_end(model, dict(logs))
        return at.history

    def _epoch(self) -> None:
        model, at, total = self.model, self.at, len(self.images)
        size = at.settings["batch_size"]
        order = self._order(total)
        if at.batch == 0:
            self._tell("on_epoch_begin", at.epoch)
        for start in range(at.batch * size, total, size):
            if model.stop_training:
                return
            some = slice(start, start + size)
            chosen = some if order is None else order[some]
            weights = None if self.weights is None else self.weights[chosen]
            self._batch(self.images[chosen], self.targets[chosen], weights)
            if at.callbacks:
                seen = min(start + size, total)
                logs = self._means(seen) | {"samples": seen}
                self._tell("on_batch_end", at.batch - 1, logs)

    def _batch(self, images: Array, targets: Array, weights: Array | None) -> None:
        at = self.at
        if self.augment is not None:
            images = self._augmented(images)
        at.rate = at.optimizer.rate
        try:
            loss_sum, correct = self.step(images, targets, weights)
        except Divergence as error:
            raise FloatingPointError(
                f"{error}, in batch {at.batch} of epoch {at.epoch}; the model keeps the weights "
                f"from before it. A lower learning rate, or clip_norm, may help"
            ) from None
        at.loss_sum += loss_sum
        at.correct += correct
        at.batch += 1

    def _augmented(self, images: Array) -> Array:
        """The batch after augmentation, if it is what the layers take."""
        assert self.augment is not None
        assert self.model.input_shape is not None
        shape = len(images), *self.model.input_shape
        # A view of its own, because the function may keep the array.
        result = np.asarray(self.augment(images, self.model.rng))[...]
        if result.shape != shape:
            raise ValueError(f"augment must return images of shape {shape}, got {result.shape}")
        is_bytes = images.dtype == np.uint8, result.dtype == np.uint8
        if result.dtype.kind not in "fiub" or is_bytes[0] != is_bytes[1]:
            raise TypeError(
                f"augment must return images of the dtype that it gets, {images.dtype}, got "
                f"{result.dtype}"
            )
        return result

    def _order(self, total: int) -> Array | None:
        """The epoch's order; when an epoch is resumed on its way, the one that it began with."""
        at, rng = self.at, self.model.rng
        if not at.settings["shuffle"]:
            return None
        if at.batch == 0:
            at.order = rng.bit_generator.state
            return rng.permutation(total)
        now = rng.bit_generator.state
        assert at.order is not None
        rng.bit_generator.state = at.order
        order = rng.permutation(total)
        rng.bit_generator.state = now
        return order

    def _means(self, seen: int) -> dict[str, float]:
        logs = {"loss": self.at.loss_sum / seen}
        if self.counts:
            logs["accuracy"] = self.at.correct / seen
        return logs

    def _tell(self, hook: str, number: int, logs: dict[str, float] | None = None) -> None:
        """Call a hook of each callback; one that raises StopTraining ends the training after it."""
        for callback in self.at.callbacks:
            try:
                getattr(callback, hook)(self.model, number, *([dict(logs)] if logs else []))
            except StopTraining:
                self.model.stop_training = True


def _line(epoch: int, epochs: int, logs: dict[str, float]) -> str:
    told = [f"epoch {epoch + 1}/{epochs}"]
    for name, value in logs.items():
        if name.endswith("accuracy"):
            told.append(f"{name} {100 * value:.2f} %")
        elif name.endswith("loss"):
            told.append(f"{name} {value:.4f}")
    return "  ".join([*told, f"{logs['seconds']:.1f} s"])
