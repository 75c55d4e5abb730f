"""Trainings that go on from a file, whoever saved it and when; and what such a file holds."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_checkpoint import bits, read
from tiny import net, stripes

from fastcnn import Augment, Callback, Sequential, load_model
from fastcnn.callbacks import (
    CSVLog,
    EarlyStopping,
    LearningRateSchedule,
    ModelCheckpoint,
    ProgressBar,
    StopTraining,
)
from fastcnn.core.arguments import Array
from fastcnn.core.json_arrays import join, shapes, split
from fastcnn.layers import BatchNorm, Dense, Dropout, Flatten, Layer
from fastcnn.optimizers import Adam
from fastcnn.train import checkpoint
from fastcnn.train.checkpoint import ModelFileError
from fastcnn.train.progress import checksum_of_samples


def chancy() -> list[Layer]:
    first, *rest = net()
    return [first, BatchNorm(), *rest[:-1], Dropout(0.3), rest[-1]]


class Saver(Callback):
    """Saves in its turn of a hook, when the hook comes for the n-th time, and ends the training."""

    def __init__(self, path: Path, hook: str = "", turn: int = 0) -> None:
        self.path, self.hook, self.turn, self.count = path, hook, turn, 0

    def _hook(self, model: Sequential, hook: str) -> None:
        self.count += hook == self.hook
        if hook == self.hook and self.count == self.turn:
            model.save_checkpoint(self.path)
            raise StopTraining

    def on_epoch_begin(self, model: Sequential, epoch: int) -> None:
        self._hook(model, "on_epoch_begin")

    def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
        self._hook(model, "on_batch_end")

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        self._hook(model, "on_epoch_end")

    def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
        if self.hook == "on_train_end":
            model.save_checkpoint(self.path)


class StopsAt(Callback):
    """Ends the training after so many epochs of this run."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        self.epochs -= 1
        if not self.epochs:
            raise StopTraining


class Seen(Callback):
    """Remembers all that it is told, also over an interrupt."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
        self.told = []

    def on_epoch_begin(self, model: Sequential, epoch: int) -> None:
        self.told.append(["begin", epoch])

    def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
        self.told.append(["batch", batch, logs["loss"]])

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        self.told.append(["end", epoch, logs["val_loss"]])

    def state(self) -> dict[str, Any]:
        return {"told": self.told}

    def restore(self, state: dict[str, Any]) -> None:
        self.told = list(state["told"])


EPOCHS, BATCHES = 9, 4
RATES = [0.3 / (1 + step % 11) for step in range(EPOCHS * BATCHES + 1)]


def fit(callbacks: list[Callback], **more: Any) -> tuple[Sequential, dict[str, list[float]]]:
    x, y = stripes(30)
    y = np.random.default_rng(5).integers(3, size=30)  # little to learn, so that it stops early
    model = Sequential(chancy(), seed=1)
    history = model.fit(
        x, y, EPOCHS, 8, "sgd", callbacks=callbacks, seed=4, verbose=0,
        augment=Augment(shift=1), validation_data=stripes(20, seed=3), **more,
    )  # fmt: skip
    figures = {k: v for k, v in history.history.items() if k != "seconds"}
    return model, figures


def others() -> list[Callback]:
    return [
        EarlyStopping("val_loss", patience=2),
        LearningRateSchedule(RATES.__getitem__, by="step"),
        Seen(),
    ]


WHERE = [
    ("on_epoch_begin", 1), ("on_epoch_begin", 3), ("on_batch_end", 1), ("on_batch_end", 6),
    ("on_batch_end", 8), ("on_batch_end", 12), ("on_epoch_end", 1), ("on_epoch_end", 2),
    ("on_epoch_end", 3), ("on_epoch_end", 4), ("on_train_end", 0), ("after", 0),
]  # fmt: skip


@pytest.mark.parametrize(("hook", "turn"), WHERE)
@pytest.mark.parametrize("place", range(4))
def test_whoever_saves_the_resumed_training_ends_in_the_same_bits(
    place: int, hook: str, turn: int, tmp_path: Path
) -> None:
    """The callback that saves stands before, between and behind the others."""

    def callbacks(saver: Callback) -> list[Callback]:
        listed = others()
        listed.insert(place, saver)
        return listed

    path = tmp_path / "training.safetensors"
    whole, figures = fit(callbacks(Saver(path)))
    ends = len(figures["loss"])
    assert 4 <= ends < EPOCHS, "it must stop early, or nothing is shown"

    if hook in ("on_train_end", "after"):
        stopped, _ = fit([*callbacks(Saver(path, hook)), StopsAt(3)])
        if hook == "after":
            stopped.save_checkpoint(path)
    else:
        stopped, _ = fit(callbacks(Saver(path, hook, turn)))
    assert stopped.optimizer.step_count < whole.optimizer.step_count
    for resuming in (callbacks(Saver(path)), others()):
        resumed, again = fit(resuming, resume=path)
        assert bits(resumed) == bits(whole)
        assert again == figures
        assert resumed.rng.bit_generator.state == whole.rng.bit_generator.state
        assert told(resumed) == told(whole)


def told(model: Sequential) -> Any:
    """What ``Seen`` was told in a model's training."""
    assert model.progress is not None
    (state,) = (one.state for one in model.progress.callback_states() if one.name == "Seen")
    return state


def test_a_training_that_has_stopped_early_stays_stopped(tmp_path: Path) -> None:
    path = tmp_path / "training"
    whole, figures = fit(others())
    whole.save_checkpoint(path)
    again, same = fit(others(), resume=path)
    assert (bits(again), same) == (bits(whole), figures)
    patient = [EarlyStopping("val_loss", patience=9), *others()[1:]]
    longer, more = fit(patient, resume=path)
    straight, expected = fit([EarlyStopping("val_loss", patience=9), *others()[1:]])
    assert len(more["loss"]) > len(figures["loss"])
    assert (bits(longer), more) == (bits(straight), expected)


def test_a_model_is_loaded_with_the_weights_that_it_had(tmp_path: Path) -> None:
    """Those of the best epoch, while the training goes on from those of the last step."""
    path, other = tmp_path / "training", tmp_path / "other"
    model, _ = fit([EarlyStopping("val_loss", patience=2), StopsAt(4)])
    model.save_checkpoint(path)
    loaded = load_model(path)
    assert bits(loaded) == bits(model)
    loaded.save_checkpoint(other)
    assert other.read_bytes() == path.read_bytes()
    model.train_on_batch(*stripes(8))  # now it has weights of its own
    model.save_checkpoint(path)
    assert bits(load_model(path)) == bits(model)
    assert not any(name.startswith("training.") for name in checkpoint.read(path).shapes)


def test_nothing_is_saved_inside_of_a_batch(tmp_path: Path) -> None:
    x, y = stripes(20)
    model = Sequential(net(), (9, 8))

    def augment(images: Array, rng: np.random.Generator) -> Array:
        model.save_checkpoint(tmp_path / "training")
        return images

    with pytest.raises(ValueError, match="must be called between batches, not inside of one"):
        model.fit(x, y, augment=augment, verbose=0)
    model.save_checkpoint(tmp_path / "training")


def test_a_resumed_training_logs_each_epoch_once(tmp_path: Path) -> None:
    """Also where the log was carried on after the checkpoint was written."""
    whole, log, path = tmp_path / "whole.csv", tmp_path / "log.csv", tmp_path / "training"

    def columns(path: Path) -> list[str]:
        return [line.rpartition(",")[0] for line in path.read_text().splitlines()]

    class Saves(Callback):
        def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
            if epoch == 1:
                model.save_checkpoint(path)

    fit([CSVLog(whole)])
    for order in (1, -1):
        fit([Saves(), CSVLog(log)][::order])
        fit([CSVLog(log)], resume=path)
        assert columns(log) == columns(whole)
    text = "an earlier training\n"
    log.write_text(whole.read_text())
    fit([CSVLog(log)], resume=path)
    assert columns(log) == columns(whole)
    log.write_text(text)
    with pytest.raises(ValueError, match="has the columns an earlier training"):
        fit([CSVLog(log)], resume=path)


def test_a_bar_where_nothing_is_left_of_an_epoch(tmp_path: Path, capsys: Any) -> None:
    fit([ProgressBar(), Saver(tmp_path / "training", "on_batch_end", BATCHES)])
    fit([ProgressBar()], resume=tmp_path / "training")
    assert "epoch 9/9: loss" in capsys.readouterr().out


# --- other data -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::fastcnn.InputWarning")  # of another scale
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1],
        lambda x: x + 1,
        lambda x: np.where(np.arange(len(x))[:, None, None] == 17, 9, x).astype(x.dtype),
        lambda x: np.roll(x, 1, axis=1),
        lambda x: x / 255,
    ],
)
def test_other_samples_of_the_same_number_are_refused(change: Any, tmp_path: Path) -> None:
    x, y = stripes(40)
    model = Sequential(net(), seed=0)
    model.fit(x, y, 1, verbose=0)
    model.save_checkpoint(tmp_path / "training")
    other = Sequential(net(), (9, 8), seed=3)
    before = bits(other)
    with pytest.raises(ValueError, match=r"x must be the data that the training in .* began with"):
        other.fit(change(x), y, 2, verbose=0, resume=tmp_path / "training")
    assert bits(other) == before
    for same in (x, np.asfortranarray(x), x[..., None], x.tolist()):
        if isinstance(same, list):
            continue  # its numbers are of another dtype, and are taken as floats
        Sequential(net(), (9, 8)).fit(same, y, 2, verbose=0, resume=tmp_path / "training")


def test_samples_that_change_while_the_training_runs(tmp_path: Path) -> None:
    """The data count that the training began with."""

    class Fades(Callback):
        def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
            x[...] = x // 2
            model.save_checkpoint(tmp_path / "training")

    x, y = stripes(40)
    first = x.copy()
    Sequential(net(), seed=0).fit(x, y, 1, verbose=0, callbacks=[Fades()])
    Sequential(net()).fit(first, y, 2, verbose=0, resume=tmp_path / "training")


def test_the_checksum_reads_a_part_of_many_samples() -> None:
    rng = np.random.default_rng(0)
    small = rng.random((300, 40))
    for i in range(300):  # all that is small
        changed = small.copy()
        changed[i, 7] += 1
        assert checksum_of_samples(changed) != checksum_of_samples(small), i
    assert checksum_of_samples(small.astype(">f8")) == checksum_of_samples(small)
    assert checksum_of_samples(small.reshape(40, 300)) != checksum_of_samples(small)

    class Counted(np.ndarray):
        read = 0

        def __getitem__(self, place: Any) -> Any:
            part = np.asarray(super().__getitem__(place))
            if isinstance(place, slice):
                Counted.read += part.nbytes
            return part

    many = np.broadcast_to(np.uint8(3), (10_000_000, 28, 28)).view(Counted)  # 7.8 GB
    assert checksum_of_samples(many) == checksum_of_samples(many)
    assert 2 * 3_000_000 < Counted.read < 2 * 5_000_000


# --- what a file holds ----------------------------------------------------------------------------


def wide(width: int) -> Sequential:
    return Sequential([Flatten(), Dense(width, activation="relu"), Dense(3)], (9, 8), seed=0)


def test_the_best_weights_of_a_large_net_are_stored_as_arrays(tmp_path: Path) -> None:
    x, y = stripes(20)
    path = tmp_path / "training"

    class Saves(Callback):
        def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
            model.save_checkpoint(path)

    def train(epochs: int, **more: Any) -> Sequential:
        model = wide(45_000)  # some 3.4 million parameters: 18 MiB as text
        model.fit(
            x, y, epochs, 20, validation_data=(x, y), verbose=0, seed=0, **more,
            callbacks=[EarlyStopping("val_loss", patience=5), Saves()],
        )  # fmt: skip
        return model

    train(2)
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert header < 20_000
    assert checkpoint.read(path).shapes["callbacks.0.0"] == ((72, 45_000), "float32")
    resumed = train(3, resume=path)
    assert bits(resumed) == bits(train(3))
    assert load_model(path).progress is not None


def test_a_file_that_could_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = stripes(10)

    class Talkative(Callback):
        words = "word"

        def state(self) -> dict[str, Any]:
            return {"words": self.words}

    talkative, path = Talkative(), tmp_path / "training"
    model = Sequential(net(), seed=0)
    model.fit(x, y, verbose=0, callbacks=[talkative])
    model.save_checkpoint(path)
    before = path.read_bytes()
    talkative.words = "word " * (4 << 20)
    with pytest.raises(ModelFileError, match=r"cannot be saved: its header would be 2\d+ bytes, o"):
        model.save_checkpoint(path)
    assert path.read_bytes() == before
    talkative.words = "word"

    class _Private(Dense):
        """Its class is not known to files."""

    nameless = Sequential([Flatten(), _Private(3)], (9, 8))
    with pytest.raises(
        ModelFileError, match="cannot be saved, because it could not be loaded: its"
    ):
        nameless.save(path)
    assert path.read_bytes() == before

    class Forgetful(Dense):
        def config(self) -> dict[str, Any]:
            return {"units": 4}

    try:
        with pytest.raises(
            ModelFileError, match=r"could not be loaded: .*but the architecture need"
        ):
            Sequential([Flatten(), Forgetful(3)], (9, 8)).save(path)
    finally:
        Layer.registry.pop("Forgetful")
    assert path.read_bytes() == before

    written: list[bytes] = []
    whole = checkpoint.write_whole

    def damaged(place: Any, data: bytes, check: Any) -> None:
        spoilt = bytearray(data)
        spoilt[-3] ^= 1
        written.append(data)
        whole(place, bytes(spoilt), check)

    monkeypatch.setattr(checkpoint, "write_whole", damaged)
    with pytest.raises(ModelFileError, match="could not be loaded: its checksum does not fit"):
        model.save_checkpoint(path)
    assert written
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["training"]


def test_what_grows_with_time_does_not_grow_in_the_header(tmp_path: Path) -> None:
    x, y = stripes(10)

    class Losses(Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.places: list[int] = []

        def state(self) -> dict[str, Any]:
            return {"losses": self.losses, "inner": [{"places": self.places}]}

        def restore(self, state: dict[str, Any]) -> None:
            self.losses, self.places = state["losses"], state["inner"][0]["places"]

    listener = Losses()
    model = Sequential(net(), seed=0)
    history = model.fit(x, y, 1, 8, verbose=0, callbacks=[listener])
    headers = []
    for count in (1_000, 100_000):
        for values in history.history.values():
            values[:] = [*np.random.default_rng(0).random(count - 1).tolist(), float("nan")]
        listener.losses = [0.1 * i for i in range(count)]
        listener.places = list(range(count))
        model.save_checkpoint(tmp_path / "training")
        headers.append(len((tmp_path / "training").read_bytes()[:8]))
        headers[-1] = int.from_bytes((tmp_path / "training").read_bytes()[:8], "little")
    assert headers[1] < headers[0] + 1_000
    again, other = Losses(), Sequential(net())
    expected = copy.deepcopy(history.history)
    result = other.fit(x, y, 1, 8, verbose=0, callbacks=[again], resume=tmp_path / "training")
    assert json.dumps(result.history) == json.dumps(expected)
    assert (again.losses, again.places) == (listener.losses, listener.places)
    assert {type(one) for one in (*again.losses, *again.places)} == {float, int}
    assert other.progress is not None
    assert other.progress.epoch == 1


def test_states_of_any_arrays(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "list": [np.arange(6, dtype=np.int16).reshape(2, 3), {"deep": np.array(True)}],
        "fortran": np.asfortranarray(np.random.default_rng(0).random((3, 4))),
        "swapped": np.arange(4, dtype=">i4"),
        "half": np.float16([1.5, np.inf]),
        "none": None, "empty": np.zeros((0, 3)), "number": np.float32(0.1), "text": "é\0",
        "large": [10**30] * 200, "mixed": [1, 2.0] * 100, "truths": [True] * 200,
    }  # fmt: skip

    class Keeps(Callback):
        saved_files: Any = None

        def state(self) -> dict[str, Any]:
            return state

        def restore(self, state: dict[str, Any]) -> None:
            self.kept = state

    x, y = stripes(10)
    model = Sequential(net(), seed=0)
    model.fit(x, y, verbose=0, callbacks=[Keeps()])
    model.save_checkpoint(tmp_path / "training")
    other = Keeps()
    Sequential(net()).fit(x, y, 1, verbose=0, callbacks=[other], resume=tmp_path / "training")
    saved_files = other.kept
    for name in ("fortran", "swapped", "half", "empty"):
        np.testing.assert_array_equal(saved_files[name], state[name])
        assert saved_files[name].dtype == state[name].dtype.newbyteorder("=")
    np.testing.assert_array_equal(saved_files["list"][0], state["list"][0])
    assert saved_files["list"][1]["deep"].shape == ()
    assert saved_files["number"] == float(np.float32(0.1))
    for name in ("none", "text", "large", "mixed", "truths"):
        assert saved_files[name] == state[name]
    assert [type(one) for one in saved_files["mixed"][:2]] == [int, float]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "must be a dict, got None"),
        ([1], r"must be a dict, got \[1\]"),
        ({"a": {1, 2}}, r"must hold numbers, text, .* got \{1, 2\}"),
        ({"a": np.array([None])}, "must hold numbers, text"),
        ({"a": np.zeros(2, complex)}, "must hold numbers, text"),
        ({"a": b"bytes"}, "must hold numbers, text"),
        ({"a": threading.Lock()}, "must hold numbers, text"),
        ({3: 4}, "must have text as keys of dicts, got 3"),
        ({"a": {"__array__": "layers.0.w"}}, "must have text as keys of dicts, got '__array__'"),
    ],
    ids=range(9),
)
def test_states_that_cannot_be_saved(state: Any, message: str, tmp_path: Path) -> None:
    class Odd(Callback):
        def state(self) -> Any:
            return state

    x, y = stripes(10)
    model = Sequential(net(), seed=0)
    model.fit(x, y, verbose=0, callbacks=[EarlyStopping("loss"), Odd()])
    with pytest.raises(TypeError, match=f"the state of callback 1, Odd, {message}"):
        model.save_checkpoint(tmp_path / "training")
    assert not list(tmp_path.iterdir())


def test_a_state_that_holds_itself() -> None:
    state: dict[str, Any] = {}
    state["state"] = [state]
    with pytest.raises(ValueError, match="must not be nested deeper than 50"):
        split("it", state, "callbacks.0")


@pytest.mark.parametrize(
    "told",
    [
        {"__array__": "layers.0.w", "dtype": "float32", "shape": [3]},
        {"__array__": "history.0", "dtype": "object", "shape": [3]},
        {"__array__": "history.0", "dtype": "float32", "shape": 3},
        {"__array__": "history.0", "dtype": "float32", "shape": [2.5]},
        {"__array__": "history.0", "dtype": "float32", "shape": [True]},
        {"__array__": "history.0", "dtype": "float32", "shape": [3], "list": 1},
        {"__array__": 3, "dtype": "float32", "shape": [3]},
        {"__array__": "history.0"},
    ],
    ids=repr,
)
def test_names_of_arrays_in_hostile_text(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="history must name an array, its dtype and shape"):
        shapes({"loss": told}, "history")
    good = {"__array__": "history.0", "dtype": "float32", "shape": [3]}
    assert shapes([good], "history") == {"history.0": ((3,), "float32")}
    with pytest.raises(ValueError, match="history must name"):
        shapes([good, good], "history")


def test_what_is_split_is_joined() -> None:
    value = {"a": [1, None, {"b": np.eye(2)}], "c": [0.5] * 100, "d": "text", "e": (1, 2)}
    text, arrays = split("it", value, "x")
    back = join(json.loads(json.dumps(text)), arrays)
    assert back["c"] == value["c"]
    assert back["e"] == [1, 2]
    np.testing.assert_array_equal(back["a"][2]["b"], np.eye(2))


def as_format_1(path: Path) -> None:
    """Write a checkpoint as earlier versions did: arrays of callbacks as text, less told."""
    file = checkpoint.read(path)
    arrays, training = file.arrays(), file.model["training"]
    training["history"] = join(training["history"], arrays)
    for one in training["callbacks"]:
        one["state"] = join(one["state"], arrays)
        one["state"].pop("monitor", None)
        weights = one["state"].get("weights")
        if weights:
            one["state"]["weights"] = [
                {"dtype": a.dtype.str, "shape": a.shape, "data": b64encode(a.tobytes()).decode()}
                for a in weights
            ]
        del one["was_called"]
    for name in ("format", "begun", "event", "has_weights"):
        del training[name]
    del training["settings"]["images"]
    plain = {k: v for k, v in arrays.items() if k.startswith(("layers.", "optimizer."))}
    checkpoint.write(path, file.model, plain)


@pytest.mark.parametrize(("hook", "turn"), [("on_batch_end", 6), ("on_epoch_end", 3)])
def test_trainings_of_earlier_versions_go_on(hook: str, turn: int, tmp_path: Path) -> None:
    path = tmp_path / "training"
    whole, figures = fit(others())
    fit([*others(), Saver(path, hook, turn)])
    as_format_1(path)
    assert load_model(path).progress is not None
    resumed, again = fit([*others(), Saver(path)], resume=path)
    assert (bits(resumed), again) == (bits(whole), figures)


def test_a_training_of_a_later_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "training"
    fit([Saver(path, "on_epoch_end", 1)])
    file = checkpoint.read(path)
    file.model["training"]["format"] = 3
    checkpoint.write(path, file.model, file.arrays())
    with pytest.raises(ModelFileError, match="its training is of format 3, not of 1 or 2"):
        load_model(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.update(event={"hook": "on_train_end", "number": 0, "logs": {}}),
        lambda t: t.update(event={"hook": "__del__", "number": 0, "logs": {}}),
        lambda t: t.update(event={"hook": "on_epoch_end", "number": 0, "logs": None}),
        lambda t: t.update(event={"hook": "on_epoch_end", "number": -1, "logs": {}}),
        lambda t: t.update(event={"hook": "on_epoch_end", "number": 1, "logs": {"loss": "low"}}),
        lambda t: t.update(event=3),
        lambda t: t.update(begun=2),
        lambda t: t.update(begun=True, order=None),
        lambda t: t["history"].update(loss=3),
        lambda t: t["history"].update(loss=["low"]),
        lambda t: t["callbacks"][0].update(was_called=None),
        lambda t: t["callbacks"][0].update({"class": 3}),
        lambda t: t["callbacks"][0]["state"].update(weights={"__array__": "layers.0.w"}),
        lambda t: t.update(format=[]),
    ],
)
def test_damaged_trainings_are_told(edit: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    path = tmp_path / "training"
    fit([EarlyStopping(), Saver(path, "on_epoch_end", 1)])
    file = checkpoint.read(path)
    edit(file.model["training"])
    checkpoint.write(path, file.model, file.arrays())
    with pytest.raises(ModelFileError, match="cannot be loaded: its "):
        load_model(path)


def test_an_optimizers_state_that_is_none(tmp_path: Path) -> None:
    x, y = stripes(10)
    model = Sequential(net(), seed=0)
    model.fit(x, y, optimizer="adam", verbose=0)
    state = model.optimizer.state
    for array in (state["mean"][:-1].copy(), state["mean"].astype(np.float64), None):
        state["mean"] = array  # type: ignore[assignment]
        with pytest.raises(ValueError, match=r"optimizer has taken steps|must be an array"):
            model.save_checkpoint(tmp_path / "training")


# --- copies and pickles ---------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
}


class Live(Callback):
    """Holds what belongs to this process."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.file = path.open("a")
        self.work = (i for i in range(3))
        self.count = 0

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        self.count += 1

    def state(self) -> dict[str, Any]:
        return {"count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Any]:
    """A terminal whose output goes to a file."""
    rich = pytest.importorskip("rich.console")
    with (tmp_path / "out").open("w") as file:
        yield rich.Console(file=file, force_terminal=True)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    one = Live(tmp_path / "file")
    yield one
    one.file.close()


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_model_has_the_state_of_its_callbacks(
    way: str, live: Live, terminal: Any, tmp_path: Path
) -> None:
    def callbacks(live: Live) -> list[Callback]:
        early = EarlyStopping("val_loss", patience=2)
        return [ProgressBar(terminal), live, early, LearningRateSchedule(lambda epoch: 0.1)]

    model, figures = fit(callbacks(live))
    copied = COPIES[way](model)
    assert bits(copied) == bits(model)
    live.count += 100
    copied.save_checkpoint(tmp_path / "copy")
    live.count -= 100
    model.save_checkpoint(tmp_path / "model")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "model").read_bytes()
    live.count = 0
    resumed, again = fit(callbacks(live), resume=tmp_path / "copy")
    assert (bits(resumed), again) == (bits(model), figures)
    assert live.count == len(figures["loss"])


@pytest.mark.parametrize("way", COPIES)
def test_a_model_is_copied_in_the_middle_of_its_training(way: str, tmp_path: Path) -> None:
    copies: list[Sequential] = []

    class Copies(Callback):
        def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
            copies.append(COPIES[way](model))

    whole, figures = fit([Copies(), *others()])
    copies[2].save_checkpoint(tmp_path / "training")
    resumed, again = fit(others(), resume=tmp_path / "training")
    assert (bits(resumed), again) == (bits(whole), figures)


def test_estimators_with_callbacks_are_cloned(live: Live) -> None:
    joblib = pytest.importorskip("joblib")
    base = pytest.importorskip("sklearn.base")
    from io import BytesIO

    from rich.console import Console

    from fastcnn import CNNClassifier

    x, y = stripes(30)
    console = Console(file=live.file)
    schedule = LearningRateSchedule(lambda epoch: 0.1)
    mine = CNNClassifier(
        epochs=1, callbacks=[ProgressBar(console), schedule, live, EarlyStopping("loss")]
    )
    for _ in range(2):
        bar, _, other, stop = base.clone(mine).callbacks
        assert bar.console is console
        assert other is not live
        assert other.lock is live.lock
        assert stop is not mine.callbacks[-1]
        mine.fit(x, y)
    bars = CNNClassifier(epochs=1, callbacks=[ProgressBar(console)]).fit(x, y)
    file = BytesIO()
    joblib.dump(bars, file)
    file.seek(0)
    loaded = joblib.load(file)
    assert loaded.callbacks[0].console is None
    np.testing.assert_array_equal(loaded.predict_proba(x), bars.predict_proba(x))
    loaded.fit(x, y)


def test_a_bar_of_a_copy_made_in_the_middle_prints(capsys: Any) -> None:
    copies: list[ProgressBar] = []

    class Copies(Callback):
        def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
            copies.append(pickle.loads(pickle.dumps(bar)))

    bar = ProgressBar()
    fit([bar, Copies()])
    capsys.readouterr()
    fit([copies[5]])
    assert "epoch 9/9" in capsys.readouterr().out


def test_a_callback_that_has_been_used_starts_anew(tmp_path: Path) -> None:
    """Also in a training that is resumed from a file which knows nothing of it."""
    stop, best = EarlyStopping("val_loss", patience=3), ModelCheckpoint(tmp_path / "best")
    fit([stop, best])
    fit([Saver(tmp_path / "training", "on_epoch_end", 2)])
    again, _ = fit([stop, best], resume=tmp_path / "training")
    fresh, _ = fit([EarlyStopping("val_loss", patience=3)], resume=tmp_path / "training")
    assert bits(again) == bits(fresh)
    assert best.best == stop.best


def test_a_state_of_another_figure_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "training"
    fit(
        [EarlyStopping("val_loss"), ModelCheckpoint(tmp_path / "m"), Saver(path, "on_epoch_end", 2)]
    )
    stop = EarlyStopping("val_accuracy", patience=EPOCHS)
    best = ModelCheckpoint(tmp_path / "n", "accuracy")
    _, figures = fit([stop, best], resume=path)
    assert stop.best == max(figures["val_accuracy"][2:])
    assert best.best == max(figures["accuracy"][2:])


def test_each_callback_is_told_of_the_end(tmp_path: Path) -> None:
    lines = []

    class Fails(Callback):
        def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
            lines.append("fails")
            raise RuntimeError("at the end")

    class Never(Callback):
        def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
            raise KeyError("at the beginning")

        def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
            lines.append("never")

    class Told(Callback):
        def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
            lines.append("told")

    with pytest.raises(RuntimeError, match="at the end"):
        fit([Fails(), Told(), Fails(), Told()])
    assert lines == ["fails", "told", "fails", "told"]
    lines.clear()
    with pytest.raises(KeyError, match="at the beginning"):
        fit([Told(), Never(), Fails()])
    assert lines == ["told", "never"]


def test_names_of_files_are_filled_in(tmp_path: Path) -> None:
    def names(template: str, **more: Any) -> tuple[set[str], dict[str, list[float]]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        _, figures = fit([ModelCheckpoint(folder / template, **more), StopsAt(3)])
        for one in folder.iterdir():
            load_model(one)
        return {one.name for one in folder.iterdir()}, figures

    result, _ = names("net-{epoch:02d}.safetensors", best_only=False)
    assert result == {"net-01.safetensors", "net-02.safetensors", "net-03.safetensors"}
    result, figures = names("{epoch}-{val_loss:.3f}-{accuracy:.2f}", best_only=False)
    assert result == {
        f"{i + 1}-{figures['val_loss'][i]:.3f}-{figures['accuracy'][i]:.2f}" for i in range(3)
    }
    result, figures = names("{epoch}", monitor="loss")
    best = [i for i in range(3) if figures["loss"][i] == min(figures["loss"][: i + 1])]
    assert result == {str(i + 1) for i in best}
    assert names("{{epoch}}")[0] == {"{epoch}"}
    assert names("plain")[0] == {"plain"}


@pytest.mark.parametrize(
    "name",
    ["{}", "{0}", "{epochs}", "{epoch.real}", "{epoch[0]}", "{model}", "{epoch", "epoch}",
     "{loss:d}", "{epoch:x.y}", "{self.__class__}", "{epoch!z}", "{loss:{width}}"],
)  # fmt: skip
def test_names_that_cannot_be_filled_in_are_refused_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path must have "):
        ModelCheckpoint(tmp_path / name)


def test_figures_that_there_are_not(tmp_path: Path) -> None:
    x, y = stripes(10)
    message = (
        "path must have fields of epoch, loss, accuracy, learning_rate, seconds, got .*; "
        "give fit validation_data or validation_split"
    )
    with pytest.raises(ValueError, match=message):
        Sequential(net()).fit(
            x, y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "{val_loss:.2f}", "loss")]
        )
    assert not list(tmp_path.iterdir())
    (tmp_path / "{run}").mkdir()
    ModelCheckpoint(tmp_path / "{run}" / "{epoch}")
    with pytest.raises(ValueError, match="existing folder"):
        ModelCheckpoint(tmp_path / "run-{epoch}" / "net")
    with pytest.raises(ValueError, match="path must have no fields, because all epochs go into on"):
        CSVLog(tmp_path / "log-{epoch}.csv")


def test_the_header_is_read_up_to_its_limit(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "model"
    model = wide(5)
    model.save(path)
    header, _ = read(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    assert header
    assert checkpoint._LARGEST_HEADER == 16 << 20
    monkeypatch.setattr(checkpoint, "_LARGEST_HEADER", size)
    model.save(path)
    load_model(path)
    monkeypatch.setattr(checkpoint, "_LARGEST_HEADER", size - 1)
    with pytest.raises(ModelFileError, match="truncated, or no safetensors file"):
        load_model(path)
    with pytest.raises(ModelFileError, match=f"its header would be {size} bytes, of at most"):
        model.save(path)


def test_optimizers_that_were_copied_go_on(tmp_path: Path) -> None:
    x, y = stripes(30)
    model = Sequential(net(), seed=0)
    model.fit(x, y, 2, 8, Adam(0.01), verbose=0, seed=0)
    copied = copy.deepcopy(model)
    for one in (model, copied):
        one.fit(x, y, 1, 8, one.optimizer, verbose=0)
    assert bits(model) == bits(copied)
