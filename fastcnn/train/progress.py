"""Where a training stands: its history, and all that a checkpoint holds beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.json_arrays import JsonObject, join, shapes, split
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, truth
from fastcnn.data.on_demand import Samples
from fastcnn.nn.optimizers import Optimizer, optimizer_from_dict, optimizer_to_dict
from fastcnn.train.callbacks import Callback

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


class History:
    """The figures of a training, epoch by epoch.

    Attributes:
        history: lists by name, one number for each epoch: ``loss``, ``accuracy`` (where the loss
            has one), ``val_loss``, ``val_accuracy`` (with validation data), ``learning_rate``
            (of the epoch's last step) and ``seconds``.
    """

    def __init__(self, history: dict[str, list[float]] | None = None) -> None:
        self.history: dict[str, list[float]] = history if history is not None else {}

    @property
    def epochs(self) -> int:
        """How many epochs are recorded."""
        return max(map(len, self.history.values()), default=0)

    def append(self, logs: dict[str, float]) -> None:
        """Add an epoch."""
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def plot(
        self, figure: Figure | SubFigure | None = None, *, width: float = 8.0
    ) -> Figure | SubFigure:
        """Draw the learning curves; :func:`fastcnn.plots.history` says how.

        Needs Matplotlib (``pip install "fastcnn[plots]"``), else it raises ``ImportError``.

        >>> [ax.get_xlabel() for ax in History({"loss": [0.9, 0.4]}).plot().axes]
        ['epoch']
        """
        # By name, because the room of pictures stands above this one.
        drawn: Figure | SubFigure = import_module("fastcnn.plots").history(
            self, figure, width=width
        )
        return drawn

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items())
        return f"History({self.epochs} epochs{'; last: ' if last else ''}{last})"


@dataclass
class SavedCallback:
    """A callback of a training that was saved or copied: its class's name and its state.

    Attributes:
        was_called: whether the hook under way at the save had reached it.
    """

    name: str
    state: JsonObject
    was_called: bool = True


@dataclass
class Event:
    """A hook that is being called, for one callback after another.

    A callback may save the training meanwhile. Those that come after it get the hook when the
    training is resumed, so that it does not matter which of them saves.

    Attributes:
        hook, number, logs: the hook's name and its arguments.
        was_called: for each callback whether it has been called.
    """

    hook: str
    number: int
    logs: dict[str, float] | None
    was_called: list[bool]


class Collector(Protocol):
    """Collects the targets and predictions of an epoch."""

    def arrays(self) -> Mapping[str, Mapping[str, Array]]:
        """What it has collected, by output and kind."""


@dataclass
class Progress:
    """Where a training stands: all that a checkpoint holds beside the weights.

    The fields are many because pickles of models hold them under these names.

    Attributes:
        optimizer: the optimizer with its state.
        settings: the arguments and checksums that a resumed training must share.
        epoch, batch: how many epochs, and batches of this epoch, are done.
        loss_sum, correct: of this epoch's batches, the losses and the samples that are right.
        sums: of this epoch's batches, the figures of each of several outputs by name.
        seen: of this epoch's batches, the number of samples, for a stream.
        outputs: of this epoch's batches, the targets and predictions for the metrics, from a file
            or a copy.
        collector: collects them while a training runs.
        rate: the learning rate of the last step.
        begun: whether the epoch has begun. Then the epoch's order was drawn from a generator in the
            state ``order``.
        history: the figures of all epochs.
        in_batch: whether a batch is under way, so that nothing can be saved.
        event: the hook that callbacks are being called for.
        callbacks: the callbacks of this training.
        saved: callbacks of the training that this one was resumed, loaded or copied from.
        waiting: for indices of ``callbacks`` the saved state that the callback must get back.
        weights: the weights of the last step, where a callback may have put others into the model
            at the end of the training.
        weights_of_model: a checksum of the model's own; None while ``on_train_end`` is called.
    """

    optimizer: Optimizer
    settings: JsonObject
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    rate: float = 0.0
    order: Mapping[str, object] | None = None
    history: History = field(default_factory=History)
    begun: bool = False
    in_batch: bool = False
    event: Event | None = None
    callbacks: list[Callback] = field(default_factory=list)
    saved: list[SavedCallback] = field(default_factory=list)
    waiting: dict[int, SavedCallback] = field(default_factory=dict)
    weights: list[Array] | None = None
    weights_of_model: str | None = None
    sums: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    outputs: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    collector: Collector | None = None

    def outputs_so_far(self) -> Mapping[str, Mapping[str, Array]]:
        """Targets and predictions of this epoch, as a file or a copy holds them."""
        return self.outputs if self.collector is None else self.collector.arrays()

    def __getstate__(self) -> dict[str, object]:
        # Callbacks may hold what lives in this process alone, such as files, locks and consoles.
        # Copies get their state, as files do.
        return {
            **vars(self),
            "callbacks": [],
            "waiting": {},
            "saved": self.callback_states(),
            "outputs": self.outputs_so_far(),
            "collector": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickles of earlier versions hold less, and the callbacks themselves.
        begun = state["batch"] > 0
        self.__dict__ |= {
            "begun": begun,
            "waiting": {},
            "saved": [],
            "sums": {},
            "seen": 0,
            "outputs": {},
            "collector": None,
            **state,
            "callbacks": [],
        }

    def take_callbacks(self, callbacks: list[Callback]) -> None:
        """Use these callbacks from now on; each gets back the state of the saved one of its class.

        The first callback of a class gets the state of the first saved one, and so on.
        """
        self.callbacks, self.waiting, rest = callbacks, {}, list(self.saved)
        for i, callback in enumerate(callbacks):
            name = type(callback).__name__
            index = next((k for k, saved in enumerate(rest) if saved.name == name), None)
            if index is not None:
                self.waiting[i] = rest.pop(index)
        if self.event is not None:
            self.event.was_called = [
                i not in self.waiting or self.waiting[i].was_called for i in range(len(callbacks))
            ]
        self.saved = []

    def callback_states(self) -> list[SavedCallback]:
        """The callbacks, as a file or a copy holds them."""
        if not self.callbacks:
            return self.saved
        return [
            SavedCallback(
                type(callback).__name__,
                self.waiting[i].state if i in self.waiting else callback.state(),
                self.event is None or self.event.was_called[i],
            )
            for i, callback in enumerate(self.callbacks)
        ]

    def remember_weights(self, trained: list[Array], others: list[Array]) -> None:
        """Keep the weights of the last step, if the model now has others."""
        self.weights = None if _same(trained, others) else trained
        self.weights_of_model = checksum_of_weights(others)

    def weights_to_save(self, of_model: list[Array]) -> list[Array] | None:
        """The last step's weights, if the model still has those put in their place."""
        if self.weights is None:
            return None
        if self.weights_of_model is None:
            return None if _same(self.weights, of_model) else self.weights
        return self.weights if checksum_of_weights(of_model) == self.weights_of_model else None


def _same(some: list[Array], others: list[Array]) -> bool:
    return all(map(np.array_equal, some, others, [True] * len(others)))  # NaN is NaN


def checksum_of_weights(weights: list[Array]) -> str:
    """A checksum of all numbers."""
    digest = sha256()
    for array in weights:
        digest.update(np.asarray(array, order="C").data if array.size else b"")
    return digest.hexdigest()


# Bytes of samples that a checksum reads in full; parts of larger samples, and bytes of each part.
_SMALL, _PARTS, _PART = 4 << 20, 64, 64 << 10


def checksum_of_samples(samples: Samples) -> int:
    """A checksum that tells samples from others; of large samples it reads parts, evenly spread.

    So it takes milliseconds, even for a memory-mapped file of many GB.

    >>> checksum_of_samples(np.zeros((3, 2))) == checksum_of_samples(np.eye(3, 2))
    False
    """
    size = max(1, samples[:1].nbytes)
    several = max(1, _PART // size)
    step = max(several, len(samples) // _PARTS) if samples.nbytes > _SMALL else several
    checksum = crc32(f"{samples.dtype.newbyteorder('=')} {samples.shape}".encode())
    native = samples.dtype.newbyteorder("=")
    for first in (*range(0, len(samples) - several, step), max(0, len(samples) - several)):
        part = np.ascontiguousarray(samples[first : first + several], native)
        checksum = crc32(part.data.cast("B"), checksum)
    return checksum


TRAINING_FORMAT = 2
"""The format of a training in a file. Format 1, with arrays as text, can be read too."""


def as_dict(
    progress: Progress, generator: np.random.Generator
) -> tuple[JsonObject, dict[str, Array]]:
    """A training and its generator as JSON, for :func:`progress_from`, and its arrays.

    Raises ``TypeError`` or ``ValueError`` for a callback's state that cannot be saved.
    """
    history, arrays = split("the history", progress.history.history, "history")
    outputs, of_outputs = split("the outputs", dict(progress.outputs_so_far()), "outputs")
    arrays |= of_outputs
    callbacks, event = [], progress.event
    for i, one in enumerate(progress.callback_states()):
        what = f"the state of callback {i}, {one.name},"
        if not isinstance(one.state, dict):
            raise TypeError(f"{what} must be a dict, got {quoted(one.state)}")
        state, arrays_of_callback = split(what, one.state, f"callbacks.{i}")
        callbacks.append({"class": one.name, "state": state, "was_called": one.was_called})
        arrays |= arrays_of_callback
    data = {
        "format": TRAINING_FORMAT,
        "epoch": progress.epoch,
        "batch": progress.batch,
        "begun": progress.begun,
        "loss_sum": progress.loss_sum,
        "correct": progress.correct,
        **({"sums": progress.sums} if progress.sums else {}),
        **({"seen": progress.seen} if progress.seen else {}),
        **({"outputs": outputs} if outputs else {}),
        "rate": progress.rate,
        "order": progress.order,
        "generator": generator.bit_generator.state,
        "history": history,
        "settings": progress.settings,
        "optimizer": {
            **optimizer_to_dict(progress.optimizer),
            "steps": progress.optimizer.step_count,
            "began": progress.optimizer.began,
            "slots": sorted(progress.optimizer.state),
        },
        "callbacks": callbacks,
        "event": event and {"hook": event.hook, "number": event.number, "logs": event.logs},
    }
    return data, arrays


UNREADABLE = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError
)  # fmt: skip
"""Errors of code that meets other data than it expects."""


def progress_from(data: JsonObject) -> tuple[Progress, list[str]]:
    """Where a saved training stands, and the names of its optimizer's arrays.

    Arrays of history and callbacks are not there yet; see :func:`shapes_of` and
    :func:`take_arrays`.
    """
    if data.get("format", 1) not in (1, TRAINING_FORMAT):
        raise ValueError(
            f"its training is of format {data['format']!r}, not of 1 or {TRAINING_FORMAT}"
        )
    optimizer = optimizer_from_dict(data["optimizer"])
    steps = count("steps", data["optimizer"]["steps"], least=0)
    # In files of earlier versions a schedule counted from an optimizer's first step.
    optimizer.resume(steps, count("began", data["optimizer"].get("began", 0), least=0))
    slots = data["optimizer"]["slots"]
    if slots and slots != sorted(optimizer.slots_needed()):
        raise ValueError(
            f"optimizer must keep the arrays that slots of {type(optimizer).__name__} names, "
            f"{optimizer.slots_needed()}, got {quoted(slots)}"
        )
    if data["order"] is not None:
        generator_from(data["order"])
    callbacks = [_callback_from(saved) for saved in data["callbacks"]]
    batch = count("batch", data["batch"], least=0)
    begun = truth("begun", data.get("begun", batch > 0))
    settings = dict(data["settings"])
    if begun and settings["shuffle"] and data["order"] is None:
        raise ValueError("order must be a generator's state, got None")
    progress = Progress(
        optimizer,
        settings,
        count("epoch", data["epoch"], least=0),
        batch,
        float(data["loss_sum"]),
        float(data["correct"]),
        float(data["rate"]),
        data["order"],
        History(dict(data["history"])),
        begun=begun,
        event=_event_from(data.get("event")),
        saved=callbacks,
        seen=count("seen", data.get("seen", 0), least=0),
        outputs=dict(data.get("outputs", {})),
        sums={text("a figure", k): float(v) for k, v in dict(data.get("sums", {})).items()},
    )
    return progress, slots


def _callback_from(data: JsonObject) -> SavedCallback:
    was_called = truth("was_called", data.get("was_called", True))
    return SavedCallback(text("class", data["class"]), dict(data["state"]), was_called)


_HOOKS = ("on_epoch_begin", "on_batch_end", "on_epoch_end")


def _event_from(data: JsonObject | None) -> Event | None:
    if data is None:
        return None
    hook, logs = data["hook"], data["logs"]
    if hook not in _HOOKS or (logs is None) != (hook == _HOOKS[0]):
        raise ValueError(f"hook must be one of {', '.join(_HOOKS)}, with its logs, got {hook!r}")
    if logs is not None:
        logs = {text("a figure", name): float(value) for name, value in logs.items()}
    return Event(hook, count("number", data["number"], least=0), logs, [])


def shapes_of(data: JsonObject) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each array of history, outputs and callbacks, by name."""
    result = shapes(data["history"], "history")
    result |= shapes(data.get("outputs", {}), "outputs")
    for i, one in enumerate(data["callbacks"]):
        result |= shapes(one["state"], f"callbacks.{i}")
    return result


def take_arrays(progress: Progress, arrays: dict[str, Array]) -> None:
    """Put the arrays of a file into history, outputs and callbacks."""
    history = progress.history.history
    if any(name.startswith("history.") for name in arrays):
        history = join(history, arrays)
    for name, values in history.items():
        if not isinstance(values, list):
            raise TypeError(
                f"{quoted(text('a figure', name))} must be a list, got {quoted(values)}"
            )
        values[:] = map(float, values)  # in place, because a file may hold very many lists
    progress.history = History(history)
    if progress.outputs:
        progress.outputs = join(dict(progress.outputs), arrays)
    for one in progress.saved:
        one.state = join(one.state, arrays)


def text(name: str, value: object) -> str:
    """``value`` as text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {value!r}")
    return value


_LAST_POSITIONS = {"pos": 624, "buffer_pos": 4}
"""The largest position of a generator in its buffer of numbers, by the name in its state."""


def generator_from(state: JsonObject) -> np.random.Generator:
    """A generator in this state."""
    kinds = {kind.__name__: kind for kind in (np.random.PCG64, np.random.PCG64DXSM,
             np.random.MT19937, np.random.Philox, np.random.SFC64)}  # fmt: skip
    if state["bit_generator"] not in kinds:
        raise ValueError(f"its generator is unknown: {quoted(state['bit_generator'])}")
    bits = kinds[state["bit_generator"]]()
    inner = {
        name: np.asarray(value, np.uint64) if isinstance(value, list) else value
        for name, value in state["state"].items()
    }
    for name, most in _LAST_POSITIONS.items():  # NumPy would read beyond the buffer
        for part in (state, inner):
            if name in part and not 0 <= count(name, part[name], least=0) <= most:
                raise ValueError(f"{name} must be at most {most}, got {quoted(part[name])}")
    complete_state: Any = {**state, "state": inner}
    bits.state = complete_state
    return np.random.Generator(bits)
