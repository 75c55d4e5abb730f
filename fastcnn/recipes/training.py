"""``fastcnn train``: nets by name on MNIST and similar data sets, with tested settings.

The last part of the training images is held out for the figures between epochs. The test images
are used once, at the end. Ctrl-C ends a training after the current batch, with a checkpoint. From
it :func:`train` continues, to bitwise the same weights.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.files import check_writable
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, number, truth
from fastcnn.core.terminal import with_width
from fastcnn.data.augmentation import Augment
from fastcnn.data.datasets import default_folder, load_dataset
from fastcnn.data.image_sets import CHANNELS, Color, load_images, some_of
from fastcnn.data.on_demand import Samples
from fastcnn.data.picture_folders import TEST_SHARE, sets_of
from fastcnn.data.pictures import ENDINGS
from fastcnn.data.preparation import (
    Preparation,
    preparation_of,
    preparation_of_pictures,
)
from fastcnn.distributed import Group
from fastcnn.models.model import Model
from fastcnn.models.nets import NETS
from fastcnn.models.sequential import Sequential
from fastcnn.nn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from fastcnn.nn.schedules import OneCycle
from fastcnn.train import checkpoint
from fastcnn.train.callbacks import Callback, ProgressBar, StopTraining
from fastcnn.train.checkpoint import ModelFileError
from fastcnn.train.progress import History

if TYPE_CHECKING:
    from rich.console import Console

IMAGE_SIZE = 64
"""The side that a user's pictures are scaled to, unless the settings name another one."""
IN_MEMORY = 128 << 20
"""Images of a cache that take at most so many bytes are read once, before the training."""
HELD_OUT = 12
"""One in so many training images is held out for validation: 5,000 of MNIST's."""
CHECKPOINT_SECONDS = 30.0
"""A checkpoint is written after an epoch if the last checkpoint is older than this."""
AUGMENT = Augment(shift=2, rotate=10, scale=0.1)
"""The augmentation of each batch for ``augment=True``."""
RATES = {"sgd": 0.05, "adam": 0.002, "adamw": 0.002, "rmsprop": 0.001}
"""Highest rates of the one-cycle schedule, for optimizers other than the recipe's."""
_CHECKPOINT = ".checkpoint.safetensors"


@dataclass(frozen=True)
class Settings:
    """The settings of a training. ``learning_rate`` is the highest rate of a one-cycle schedule.

    ``data`` is a data set's folder, or None for the bundled MNIST. ``size`` is the side that its
    pictures are scaled to, or None if all have one size. ``color`` is None for a data set, and
    "rgb" or "gray" for pictures of any sizes in a folder for each class, which are scaled to
    ``size``. ``cache`` is the folder of a file of such images, from which each batch is read where
    they are many; None holds all of them in memory.
    """

    net: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    augment: bool
    seed: int = 0
    data: str | None = None
    size: int | None = None
    color: Color | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("net", NETS), ("optimizer", RATES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {quoted(getattr(self, name))}"
                )
        count("epochs", self.epochs)
        count("batch_size", self.batch_size)
        count("seed", self.seed, least=0)
        number("learning_rate", self.learning_rate)
        truth("augment", self.augment)
        if self.size is not None:
            count("size", self.size)
        if self.color not in (None, *CHANNELS):
            raise ValueError(f'color must be "rgb" or "gray", got {quoted(self.color)}')
        if self.cache is not None and self.color is None:
            raise ValueError("--cache needs --images, because it holds pictures that were scaled")


# The defaults of each net. They were chosen on the held-out images, without the test images.
RECIPES = {
    "small": Settings("small", 3, 64, "sgd", 0.1, False),
    "article": Settings("article", 3, 32, "sgd", 0.05, False),
    "lenet5": Settings("lenet5", 5, 64, "sgd", 0.05, False),
    "wide": Settings("wide", 4, 64, "sgd", 0.05, False),
    "resnet8": Settings("resnet8", 5, 64, "sgd", 0.05, False),
}
DEFAULT_NET = "small"


def settings_for(net: str = DEFAULT_NET, **changes: Any) -> Settings:
    """The settings of a net by its name, with ``changes``; changes that are None do not count.

    Another optimizer than the recipe's has its own learning rate, from :data:`RATES`.

    Raises:
        TypeError, ValueError: an unknown name, or a number out of range.

    >>> settings_for("small", optimizer="adam", epochs=None).learning_rate
    0.002
    """
    if net not in RECIPES:
        raise ValueError(f"net must be one of {', '.join(RECIPES)}, got {quoted(net)}")
    recipe = RECIPES[net]
    overrides = {name: value for name, value in changes.items() if value is not None}
    optimizer = overrides.get("optimizer", recipe.optimizer)
    if optimizer != recipe.optimizer and optimizer in RATES:
        overrides.setdefault("learning_rate", RATES[optimizer])
    return replace(recipe, **overrides)


_STEPS, _MOST_EPOCHS = 200, 30
"""A training on few pictures has so many steps, but not more than so many epochs."""


def epochs_on_pictures(folder: str | os.PathLike[str], settings: Settings) -> int:
    """The epochs of a training on pictures for which none are asked: more where they are few.

    >>> epochs_on_pictures("no such folder", settings_for("small"))
    3
    """
    root = Path(folder)
    files = (file for form in ("*/*", "*/*/*") for file in root.glob(form))
    pictures = sum(file.suffix.lower() in ENDINGS for file in files)
    batches = -(-pictures // settings.batch_size)
    return max(settings.epochs, min(_MOST_EPOCHS, _STEPS // batches if batches else 0))


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a training, complete or interrupted.

    ``test`` holds loss and accuracy on the test images; None after an interrupt. ``checkpoint`` is
    the file from which an interrupted training can continue. ``test_data`` are the test images and
    their classes. ``shards`` is the number of parts of each batch in a training with a group.
    """

    model: Sequential
    history: History
    test: dict[str, float] | None
    seconds: float
    saved: Path | None
    checkpoint: Path | None
    test_data: tuple[Samples, NDArray[np.int64]]
    shards: int | None = None


class _Data(NamedTuple):
    """The images of a training, and their classes.

    ``train`` and ``test`` are images (N, H, W) or (N, H, W, C) of bytes with classes (N,); ``form``
    and ``names`` are those of :class:`fastcnn.data.datasets.Dataset`.
    """

    train: tuple[Samples, NDArray[np.int64]]
    test: tuple[Samples, NDArray[np.int64]]
    form: str
    names: tuple[str, ...]


def train(
    settings: Settings,
    save: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    console: Console | None = None,
    prepare: Callable[[Sequential, Optimizer], object] | None = None,
    group: Group | None = None,
) -> Trained:
    """Train a net, test it, and save it.

    Args:
        settings: the result of :func:`settings_for`, or of :func:`settings_of` to resume.
        save: the file for the trained model. The checkpoint of an interrupted training is written
            beside it, as ``NAME.checkpoint.safetensors``. None writes neither.
        resume: a checkpoint to continue from.
        console: a Rich console for the progress; None for the standard output.
        prepare: is called with the model and an optimizer of its kind before the training begins.
        group: the processes that train together; rank 0 alone writes and tests, and the result of
            the others has a NaN for each figure of the test.

    Returns:
        The result, as :class:`Trained`.

    Raises:
        ValueError, OSError: there are no data, a file cannot be written, or the checkpoint belongs
            to another training. These are raised before any work.
        FloatingPointError: the loss became infinite or NaN.
    """
    from rich.console import Console

    console = with_width(Console(highlight=False)) if console is None else console
    is_first = group is None or group.rank == 0
    if not is_first:
        console, save = Console(quiet=True), None
    model_file = None if save is None else _writable(Path(save))
    data = _in_random_order(_data(settings))
    (x, y), (x_test, y_test) = data.train, data.test
    if not (held_count := len(x) // HELD_OUT):
        raise ValueError(f"data must have at least {HELD_OUT} training images, got {len(x)}")
    model = _new_model(settings, data)
    _print_start(console, settings, model, len(x) - held_count, held_count)
    if prepare is not None and is_first:  # others find the kernels in its cache
        prepare(model, _optimizer(settings))
    watch = _Watch(settings, None if model_file is None else checkpoint_of(model_file), resume)
    start = perf_counter()
    with watch.listening(console):
        history = model.fit(
            some_of(x, slice(-held_count)),
            y[:-held_count],
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            optimizer=_optimizer(settings),
            validation_data=(some_of(x, slice(-held_count, None)), y[-held_count:]),
            callbacks=[ProgressBar(console), watch],
            augment=AUGMENT if settings.augment else None,
            verbose=0,
            resume=resume,
            group=group,
        )
    if group is not None:
        watch.interrupted = group.any(watch.interrupted)
    seconds = perf_counter() - start
    shards = None if group is None else group.shards
    if watch.interrupted:
        return Trained(model, history, None, seconds, None, watch.checkpoint, data.test, shards)
    if model_file is not None:
        model.save(model_file)  # before the test, so that an interrupt does not lose the training
        watch.clear()
    nothing = dict.fromkeys(("loss", "accuracy"), float("nan"))
    test = model.evaluate(x_test, y_test) if is_first else nothing
    return Trained(model, history, test, seconds, model_file, None, data.test, shards)


def _new_model(settings: Settings, data: _Data) -> Sequential:
    """A net of the settings' name with a class for each label of the data."""
    images, labels = data.train
    classes = int(max(labels.max(), data.test[1].max())) + 1
    result = Sequential(NETS[settings.net](classes), images.shape[1:], seed=settings.seed)
    result.preparation = _preparation(images, data.form)
    result.classes = data.names or None
    return result


def _print_start(
    console: Console, settings: Settings, model: Sequential, train_count: int, held_count: int
) -> None:
    parameters = sum(a.size for layer in model.layers for a in layer.parameters.values())
    console.print(
        f"{settings.net}: {parameters:,} parameters, {train_count:,} images to train on, "
        f"{held_count:,} held out"
    )
    if model.classes:
        classes = ", ".join(f"{i} {name}" for i, name in enumerate(model.classes))
        console.print(f"classes: {classes}", markup=False, soft_wrap=True)


def _in_random_order(data: _Data) -> _Data:
    """The data with the training pictures shuffled, because files are sorted by class."""
    if data.form != "pictures":
        return data
    x, y = data.train
    order = np.random.default_rng(0).permutation(len(x))
    return data._replace(train=(some_of(x, order), y[order]))


def _data(settings: Settings) -> _Data:
    """The data of a training."""
    folder = default_folder() if settings.data is None else settings.data
    size = None if settings.size is None else (settings.size, settings.size)
    if settings.color is None:
        return _Data(*load_dataset(folder, size))
    side = (IMAGE_SIZE, IMAGE_SIZE) if size is None else size
    read = partial(
        load_images,
        size=side,
        color=settings.color,
        lazy=settings.cache is not None,
        cache=settings.cache,
    )
    place = Path(folder)
    sets = sets_of(place)
    if sets is not None and sets[1] is not None:
        train = read(sets[0])
        test = read(sets[1], classes=train.classes)
    else:
        train, test = read(place if sets is None else sets[0]).split(1 / TEST_SHARE)
    first, second = ((_held(one.images), one.labels) for one in (train, test))
    return _Data(first, second, "pictures", train.classes)


def _held(images: Samples) -> Samples:
    """Images of a cache in memory, if they are few, because then a small net trains faster."""
    return np.asarray(images) if images.nbytes <= IN_MEMORY else images


def _preparation(images: Samples, form: str) -> Preparation | None:
    """The preparation of pictures for a net that is trained on these images."""
    if isinstance(images, np.ndarray):
        upright = images.swapaxes(1, 2) if form == "emnist" else images
        images = upright if upright.ndim == 4 else upright[..., np.newaxis]
    if form == "pictures":
        return preparation_of_pictures(images)
    preparation = preparation_of(images)
    return preparation and replace(preparation, transposed=form == "emnist")


def model_for(net: str, shape: tuple[int, ...] | None = None, classes: int = 10) -> Sequential:
    """A new model of a net by its name, for images of this shape; None means MNIST's shape.

    >>> model_for("article").output_shape
    (10,)
    """
    return Sequential(NETS[net](classes), shape or (28, 28, 1), seed=0)


def optimizer_for(net: str) -> Optimizer:
    """A new optimizer of the kind in a net's settings."""
    return _optimizer(RECIPES[net])


def checkpoint_of(save: Path) -> Path:
    """The checkpoint's path for a training that saves its model to ``save``.

    >>> checkpoint_of(Path("net.safetensors")).name
    'net.checkpoint.safetensors'
    """
    return save.with_name(f"{save.stem}{_CHECKPOINT}")


def save_of(checkpoint: Path) -> Path | None:
    """The model's path for a checkpoint with its usual name; None for any other name.

    >>> save_of(Path("net.checkpoint.safetensors")).name
    'net.safetensors'
    """
    if not checkpoint.name.endswith(_CHECKPOINT):
        return None
    return checkpoint.with_name(f"{checkpoint.name.removesuffix(_CHECKPOINT)}.safetensors")


def settings_of(path: str | os.PathLike[str]) -> Settings:
    """The settings of the training in a checkpoint of :func:`train`.

    Raises:
        ModelFileError: the file holds no such training.
        OSError: the file cannot be opened.
    """
    file = checkpoint.read(path)
    try:
        (state,) = [
            one["state"]
            for one in file.model["training"]["callbacks"]
            if one["class"] == _Watch.__name__
        ]
        return Settings(**state)
    except (KeyError, TypeError, ValueError):
        raise ModelFileError(
            f"{path} cannot be resumed: it holds no training of `fastcnn train`"
        ) from None


def shards_of(path: str | os.PathLike[str]) -> int | None:
    """The shards of the training in a checkpoint; None if it had no group of processes.

    Raises:
        ModelFileError: the file holds no training.
        OSError: the file cannot be opened.
    """
    file = checkpoint.read(path)
    try:
        shards = file.model["training"]["settings"].get("shards")
        return None if shards is None else count("shards", shards)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ModelFileError(f"{path} cannot be resumed: it holds no training") from None


def _optimizer(settings: Settings) -> Optimizer:
    rate = OneCycle(settings.learning_rate)
    if settings.optimizer == "sgd":
        return SGD(rate, momentum=0.9, nesterov=True)
    return {"adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}[settings.optimizer](rate)


def _writable(save: Path) -> Path:
    """The path, if a file can be written there; an earlier file stays until a new one is whole."""
    if save.is_dir() or not save.absolute().parent.is_dir():
        raise ValueError(f"save must be a file in an existing folder, got {quoted(str(save))}")
    check_writable(save)
    return save


class _Watch(Callback):
    """Ends the training cleanly after a signal, and writes checkpoints, from time to time and then.

    In a group, a signal to one process stops all of them, and rank 0 writes. The state of the
    callback is the training's settings, so that each checkpoint holds them.
    """

    on_every_process = True

    def __init__(
        self, settings: Settings, path: Path | None, resumed: str | os.PathLike[str] | None
    ) -> None:
        self.settings = settings
        self.path = path
        self.resumed = None if resumed is None else Path(resumed)
        self.begun = False
        self.interrupted = False
        self.ends_in_batch = False  # if so, no checkpoint can be written
        self.checkpoint: Path | None = None
        self._last = perf_counter()

    @contextmanager
    def listening(self, console: Console) -> Iterator[None]:
        """Within this context Ctrl-C or SIGTERM ends the training after the current batch.

        A second signal ends it at once. So does one in the first batch, which may take long because
        kernels compile, and has no progress to lose.
        """

        def interrupt(number: int, frame: FrameType | None) -> None:
            self.ends_in_batch = self.interrupted or not self.begun
            self.interrupted = True
            if self.ends_in_batch:
                usual = before[signal.Signals(number)]
                if callable(usual):
                    usual(number, frame)
                raise KeyboardInterrupt
            console.print("stopping after this batch; Ctrl-C again stops at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, interrupt) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, usual in before.items():
                signal.signal(one, usual)

    def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
        self.begun = True
        if self.interrupted:
            raise StopTraining

    def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
        if self.interrupted:
            raise StopTraining
        if perf_counter() - self._last > CHECKPOINT_SECONDS:
            self._write(model)

    def on_train_end(self, model: Model, logs: dict[str, float]) -> None:
        self.interrupted |= model.stop_training  # another process of the group has had the signal
        if self.interrupted and not self.ends_in_batch:
            self._write(model)

    def _write(self, model: Model) -> None:
        if self.path is not None:
            model.save_checkpoint(self.path)
            self.checkpoint = self.path
        self._last = perf_counter()

    def clear(self) -> None:
        """Remove the checkpoint after a complete training."""
        if self.checkpoint is not None or self.resumed == self.path:
            with suppress(FileNotFoundError):
                assert self.path is not None
                self.path.unlink()

    def state(self) -> dict[str, Any]:
        return asdict(self.settings)
