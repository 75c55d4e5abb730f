"""Random objects of a user's own that misbehave, and random edits of models, on every engine.

    python reliability/fuzz_user_code.py --cases 5000        some minutes
    python reliability/fuzz_user_code.py --seed 3 --first 47 --cases 1      one case again

A case is a small model with layers, a loss, an optimizer, callbacks and an augmentation, some of
which are the user's own and return what they should not (``tests/misbehaving.py``), and a row of
acts: predictions, trainings, files, copies, and edits: assignments to attributes and arrays, to
``layers``, to the optimizer's state, an optimizer that is used again. Each act is done to the same
model on every engine.

- No process ends by it. The cases run in processes of their own, and one that crashes is named.
- It is done, or it is an AttributeError, a TypeError, a ValueError or a FloatingPointError; the
  same on every engine.
- What is refused, and what only looks, leaves the weights as they were, and the data too.
- What is done counts everywhere: for each engine, each size of the batch, in copies, and after
  saving and loading.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from fuzz_calls import Dice, RandomDice

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from misbehaving import CHANGES, DIVERGED, RIGHT, Descent, Distance, Rates, Scale

import fastcnn
from fastcnn.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateSchedule,
    ModelCheckpoint,
    StopTraining,
)
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Shape,
)
from fastcnn.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from fastcnn.models.sequential import Sequential, load_model
from fastcnn.nn.layers import infer_stack
from fastcnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from fastcnn.schedules import Cosine, Schedule

ALLOWED = AttributeError, TypeError, ValueError, FloatingPointError
"""Errors of an act that is refused. A ``KeyError`` is added where a key is looked up."""
TOLERANCE = {"float32": 5e-3, "float64": 1e-7}
"""Of the largest number: roundings of a few layers, and of some steps."""
BATCH = 100  # cases for one process


class Moody(Scale):
    """Misbehaves always, in training alone, or for a single sample."""

    def __init__(self, place: str = "", change: str = "itself", when: str = "always") -> None:
        super().__init__(place, change)
        self.when = when

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        y, saved = super().forward(x, training, rng, engine)
        bad = {"always": True, "training": training, "single": len(x) == 1}[self.when]
        return (y if bad else x * self.parameters["w"]), saved


class Noise(Layer):
    """Adds noise in training, from the generator that it gets."""

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        return (x + rng.standard_normal(x.shape) / 8 if training else x), None

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy, {}


class Writes(Scale):
    """Writes to what it gets."""

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        x += 1
        return super().forward(x, training, rng, engine)


class Meddles(Callback):
    """Does something to the model in a hook, once."""

    def __init__(self, hook: str, act: Callable[[Sequential], object]) -> None:
        self.hook, self.act, self.done = hook, act, False

    def _once(self, hook: str, model: Sequential) -> None:
        if hook == self.hook and not self.done:
            self.done = True
            self.act(model)

    def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
        self._once("on_train_begin", model)

    def on_epoch_begin(self, model: Sequential, epoch: int) -> None:
        self._once("on_epoch_begin", model)

    def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
        self._once("on_batch_end", model)

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        self._once("on_epoch_end", model)

    def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
        self._once("on_train_end", model)


HOOKS = ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")
JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 3, 2.5, float("nan"), "x", "relu", (), (2, 2), [1], {}, np.zeros(3), Dense,
    lambda *_: None,
)  # fmt: skip


class Case:
    """A recipe for a model, data, and a row of acts; drawn from the dice alone."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.dtype: Any = dice.choice(["float32", "float64"])
        self.shape: Shape = dice.choice([(6, 5, 2), (5, 4, 1), (7,)])
        self.seed = dice.integer(0, 2**31)
        self.misbehaves = dice.integer(0, 3) > 0
        self.layers = self._layers()
        self.outputs: Shape = infer_stack(self.layers, self.shape)[-1]
        self.loss = self._loss()
        rng = np.random.default_rng(dice.integer(0, 2**31))
        count = dice.choice([2, 5, 8])
        self.x = rng.integers(-4, 5, (count, *self.shape)).astype(self.dtype) / 4
        self.y: Array = rng.integers(0, self.outputs[-1], count)
        if not isinstance(self.loss, CrossEntropy):
            self.y = rng.integers(0, 2, (count, *self.outputs)).astype(self.dtype)
        self.acts = [self._act() for _ in range(dice.integer(2, 6))]

    def __str__(self) -> str:
        what = ", ".join(name for name, _ in self.acts)
        return f"{self.layers} on {self.x.shape} {self.dtype}, {self.loss!r}: {what}"

    def _change(self) -> str:
        names = [*CHANGES] if self.misbehaves and self.dice.integer(0, 1) else [*RIGHT]
        return self.dice.choice(names)

    def _layers(self) -> list[Layer]:
        dice, here, layers = self.dice, self.shape, list[Layer]()
        for _ in range(dice.integer(1, 4)):
            made = self._layer(here)
            try:
                *_, after = infer_stack([made], here)
            except ValueError:
                continue  # it does not fit here
            layers.append(made)
            here = after
        if len(here) == 3:
            layers.append(Flatten())
        layers.append(Dense(dice.choice([2, 3])))
        if dice.integer(0, 4) == 0:
            layers.append(self._own_layer())
        return layers

    def _layer(self, here: Shape) -> Layer:
        dice = self.dice
        activation: Any = dice.choice([None, "relu"])
        kind = dice.integer(0, 9)
        if kind < 3:
            return self._own_layer()
        if len(here) == 1 or kind == 3:
            options = [Dense(dice.integer(1, 6), activation=activation), ReLU(), Dropout(0.5)]
            return dice.choice([*options, BatchNorm()])
        if kind < 6:
            return Conv2D(dice.integer(1, 4), dice.integer(1, 3), activation=activation)
        if kind == 6:
            return Residual([Conv2D(here[2], 3, padding="same"), self._own_layer()])
        return dice.choice([MaxPool2D(), BatchNorm(), LeakyReLU(0.5), Dropout(0.25)])

    def _own_layer(self) -> Layer:
        dice = self.dice
        kind = dice.integer(0, 9)
        if kind == 0:
            return Noise()
        if kind == 1 and self.misbehaves:
            return Writes()
        place = dice.choice(["output", "dx", "dw"])
        return Moody(place, self._change(), dice.choice(["always", "training", "single"]))

    def _loss(self) -> Loss:
        dice = self.dice
        kind = dice.integer(0, 4)
        if kind > 2:
            place = dice.choice(["targets", "values", "gradient", "predictions"])
            return Distance(place, self._change())
        return dice.choice([CrossEntropy(), CrossEntropy(0.1), MeanSquaredError(),
                            BinaryCrossEntropy()])  # fmt: skip

    def _optimizer(self) -> Callable[[], Optimizer]:
        change, rate = self._change(), self.dice.choice(JUNK)
        rates = [0.05, 0.05, rate] if self.misbehaves else [0.05, 0.01]
        # With a small epsilon a gradient that is 0 but for rounding makes a step like any other.
        options: list[Callable[[], Optimizer]] = [
            lambda: SGD(0.05), lambda: SGD(0.05, momentum=0.5), lambda: Adam(0.01, epsilon=0.1),
            lambda: AdamW(Cosine(0.01), epsilon=0.1), lambda: RMSprop(0.01, epsilon=0.1),
            lambda: SGD(Rates(rates)), lambda: Descent(0.05, change),
            lambda: Adam(0.01, epsilon=0.1, clip_norm=1.0),
        ]  # fmt: skip
        return self.dice.choice(options)

    # --- acts -------------------------------------------------------------------------------------

    def _act(self) -> tuple[str, Act]:
        dice = self.dice
        kind = dice.integer(0, 11)
        if kind < 2:
            size = dice.choice([1, 2, 256])
            return f"predict by {size}", lambda one: one.model.predict(one.x, size)
        if kind == 2:
            return "evaluate", lambda one: one.model.evaluate(one.x, one.y, 3)
        if kind < 5:
            make = self._optimizer()
            return "train on a batch", lambda one: one.train_on_batch(make())
        if kind == 5:
            again = dice.integer(0, 1)
            return "train with the same optimizer", lambda one: one.train_again(bool(again))
        if kind < 8:
            return self._fit()
        return self._edit()

    def _fit(self) -> tuple[str, Act]:
        dice, make = self.dice, self._optimizer()
        epochs, size, shuffle = dice.integer(1, 3), dice.choice([1, 3, 8]), dice.integer(0, 1)
        change = self._change() if dice.integer(0, 2) == 0 else None
        writes = dice.integer(0, 1) == 0
        meddling = [self._meddling() for _ in range(dice.integer(0, 2))]
        usual = dice.integer(0, 3)

        def augment(images: Array, rng: np.random.Generator) -> Any:
            if writes:
                images += 0.25
            return images if change is None else CHANGES[change](images)

        def callbacks(one: Run) -> list[Callback]:
            listed: list[Callback] = [Meddles(hook, act(one)) for _, hook, act in meddling]
            if usual == 0:
                listed.append(EarlyStopping("loss", patience=1))
            if usual == 1:
                listed.insert(0, LearningRateSchedule(lambda step: 0.05 / (step + 1), by="step"))
            if usual == 2:
                listed.append(ModelCheckpoint(one.folder / "{epoch}-{loss:.1f}", "loss"))
            return listed

        def fit(one: Run) -> object:
            history = one.model.fit(
                one.x, one.y, epochs, size, make(), one.model.loss, callbacks=callbacks(one),
                shuffle=bool(shuffle), verbose=0, augment=augment if change or writes else None,
            )  # fmt: skip
            return [history.history.get("loss", []), one.model.get_weights()]

        names = [name for name, _, _ in meddling]
        return f"fit(augment={change}, {epochs=}, {size=}, {names})", fit

    def _meddling(self) -> tuple[str, str, Callable[[Run], Callable[[Sequential], object]]]:
        """What a callback does, in which hook."""
        dice = self.dice
        hook, junk = dice.choice(HOOKS), dice.choice(JUNK)

        def stop(model: Sequential) -> None:
            raise StopTraining

        def fail(model: Sequential) -> None:
            raise ValueError("a callback's own")

        def zero(model: Sequential) -> None:
            model.set_weights([np.zeros_like(array) for array in model.get_weights()])

        edit_name, edit = self._edit()
        acts: list[tuple[str, Callable[[Run], Callable[[Sequential], object]]]] = [
            ("stops", lambda one: stop),
            ("fails", lambda one: fail),
            ("zeros", lambda one: zero),
            ("predicts", lambda one: lambda model: model.predict(one.x)),
            ("trains", lambda one: lambda model: model.train_on_batch(one.x, one.y)),
            ("saves", lambda one: lambda model: model.save_checkpoint(one.folder / "saved")),
            ("copies", lambda one: lambda model: copy.deepcopy(model)),
            (f"rate {junk!r}", lambda one: lambda model: setattr(
                model.optimizer, "learning_rate", junk)),
            (edit_name, lambda one: lambda model: edit(one)),
        ]  # fmt: skip
        name, act = dice.choice(acts)
        return f"{name} in {hook}", hook, act

    def _edit(self) -> tuple[str, Act]:
        """An assignment that a user may try."""
        dice = self.dice
        place, junk = dice.integer(0, len(self.layers) - 1), dice.choice(JUNK)
        attribute = dice.choice(
            ["activation", "units", "filters", "kernel_size", "strides", "padding", "rate",
             "momentum", "epsilon", "use_bias", "input_shape", "output_shape", "parameters",
             "state", "forward", "backward", "pool_size", "slope", "place", "trainable", "name",
             "layers"],
        )  # fmt: skip
        value = dice.choice([-0.5, 0.25])
        of_model = dice.choice(["layers", "dtype", "input_shape", "output_shape", "loss", "rng",
                                "trained_on", "optimizer"])  # fmt: skip
        options: list[tuple[str, Act]] = [
            (f"layers[{place}].{attribute} = {junk!r}",
             lambda one: setattr(one.model.layers[place], attribute, junk)),
            (f"layers[{place}].parameters[...][...] = {value}",
             lambda one: one.fill(place, value)),
            (f"layers[{place}].parameters[...] = an array", lambda one: one.replace(place, None)),
            (f"layers[{place}].parameters[...] = {junk!r}",
             lambda one: one.replace(place, (junk,))),
            (f"the shape of an array of layers[{place}]", lambda one: one.reshape(place)),
            (f"layers[{place}] = Dense(2)",
             lambda one: one.model.layers.__setitem__(place, Dense(2))),  # type: ignore[attr-defined]
            ("layers.pop()", lambda one: one.model.layers.pop()),  # type: ignore[attr-defined]
            ("set_weights", lambda one: one.model.set_weights(
                [array * value for array in one.model.get_weights()])),
            (f"set_weights({junk!r})", lambda one: one.model.set_weights(junk)),
            (f"model.{of_model} = {junk!r}", lambda one: setattr(one.model, of_model, junk)),
            ("optimizer.state", lambda one: one.spoil_state(junk)),
            ("a file", lambda one: one.through_a_file()),
            ("a copy", lambda one: one.replace_model(copy.deepcopy(one.model))),
            ("a pickle", lambda one: one.replace_model(pickle.loads(pickle.dumps(one.model)))),
        ]  # fmt: skip
        return dice.choice(options)


class Run:
    """One engine's model of a case, and what acts do to it."""

    def __init__(self, case: Case, engine: str | None, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.x, self.y = case.x.copy(), case.y.copy()
        self.model = Sequential(
            copy.deepcopy(case.layers), case.shape, seed=case.seed, dtype=case.dtype, engine=engine
        )
        self.model.loss = copy.deepcopy(case.loss)
        self.optimizer = Adam(0.01, epsilon=0.1)

    def train_on_batch(self, optimizer: Optimizer) -> object:
        told = self.model.train_on_batch(self.x, self.y, optimizer, self.model.loss)
        return [told[0], self.model.get_weights()]

    def train_again(self, fit: bool) -> object:
        if fit:
            self.model.fit(
                self.x, self.y, optimizer=self.optimizer, loss=self.model.loss, verbose=0
            )
            return self.model.get_weights()
        return self.train_on_batch(self.optimizer)

    def fill(self, place: int, value: float) -> None:
        # Weights and biases differ, because the samples are multiples of 0.25: a sum of exactly 0
        # would be at ReLU's kink, where rounding decides about a gradient.
        for i, array in enumerate(self.model.layers[place].parameters.values()):
            array[...] = value + i / 7

    def replace(self, place: int, junk: tuple[Any, ...] | None) -> None:
        parameters = self.model.layers[place].parameters
        for name, array in parameters.items():
            parameters[name] = array * 0.5 if junk is None else junk[0]
            return

    def reshape(self, place: int) -> None:
        for array in self.model.layers[place].parameters.values():
            array.shape = (array.size,)

    def spoil_state(self, junk: Any) -> None:
        state = self.model.optimizer.state
        for name in list(state):
            state[name] = junk

    def through_a_file(self) -> None:
        self.model.save(self.folder / "model")
        self.replace_model(load_model(self.folder / "model"))

    def replace_model(self, model: Sequential) -> None:
        model.engine = self.engine
        model.rng = copy.deepcopy(self.model.rng)
        self.model = model


Act = Callable[[Run], object]


def weights(model: Sequential) -> list[bytes]:
    return [array.tobytes() for array in model.get_weights()]


def outcome(run: Run, act: Act) -> tuple[str, Any, list[str]]:
    """What an act gives or raises, and what is wrong with it."""
    wrong: list[str] = []
    before, data = weights(run.model), (run.x.tobytes(), run.y.tobytes())
    try:
        with np.errstate(all="ignore"):
            result = act(run)
    except ALLOWED as error:
        told = type(error).__name__
        if not str(error):
            wrong.append(f"{told} without a message")
        result = None
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {str(error)[:200]}")
        told, result = type(error).__name__, None
    else:
        told = ""
    if (run.x.tobytes(), run.y.tobytes()) != data:
        wrong.append("the data were written to")
    if told and weights(run.model) != before:
        told += ", weights changed"  # a fit that failed in a later batch; the same everywhere
    return told, result, wrong


def complaints(case: Case, folder: Path) -> Iterator[str]:
    """What is wrong with the acts of a case, on any engine."""
    runs = []
    for engine in (None, *fastcnn.engines()):
        where = folder / str(engine)
        where.mkdir(exist_ok=True)
        runs.append(Run(case, engine, where))
    for name, act in case.acts:
        outcomes = [outcome(run, act) for run in runs]
        for run, (_, _, wrong) in zip(runs, outcomes, strict=True):
            yield from (f"{name} on {run.engine}: {one}" for one in wrong)
        told = {run.engine: one[0] for run, one in zip(runs, outcomes, strict=True)}
        if len({*told.values()}) > 1:
            yield f"{name}: engines do not agree: {told}"
            return
        if "weights changed" in outcomes[0][0] and not name.startswith(("fit", "train with")):
            yield f"{name}: it was refused, and weights changed"
        reference = outcomes[-1][1]
        for run, (_, result, _) in zip(runs[:-1], outcomes[:-1], strict=True):
            if not near(result, reference, case.dtype):
                yield f"{name}: {run.engine} differs from the specification"
                return
    yield from agreement(case, runs)


def agreement(case: Case, runs: list[Run]) -> Iterator[str]:
    """Whether the models are the same after all: on engines, in batches, in copies and files."""
    whole = [outcome(run, lambda one: one.model.predict(one.x)) for run in runs]
    if len({told for told, _, _ in whole}) > 1:
        yield f"predictions afterwards: engines do not agree: {[told for told, _, _ in whole]}"
        return
    for run, (told, predicted, wrong) in zip(runs, whole, strict=True):
        yield from (f"predictions afterwards on {run.engine}: {one}" for one in wrong)
        if not near(predicted, whole[-1][1], case.dtype):
            yield f"predictions afterwards: {run.engine} differs from the specification"
        if told:
            continue
        single = any(isinstance(one, Moody) and one.when == "single" for one in case.layers)
        nested = any(isinstance(one, Residual) for one in case.layers)
        # A loss that makes one prediction of a batch infinite makes all infinite, one by one.
        of_batch = getattr(case.loss, "place", "") == "predictions" and case.loss.change in DIVERGED
        if not single and not nested and not of_batch:
            ones = outcome(run, lambda one: one.model.predict(one.x, 1))[1]
            if run.engine != "im2col" and ones.tobytes() != predicted.tobytes():
                yield f"predictions afterwards on {run.engine}: one by one they have other bits"
        again, _, wrong = outcome(run, lambda one: one.through_a_file())
        if again == "ModelFileError" or wrong:
            yield f"a file afterwards on {run.engine}: {again} {wrong}"
        if not again:
            loaded = outcome(run, lambda one: one.model.predict(one.x))[1]
            if loaded is None or loaded.tobytes() != predicted.tobytes():
                yield f"predictions afterwards on {run.engine}: loaded from a file they differ"


def near(a: Any, b: Any, dtype: str) -> bool:
    """Whether two results are the same but for rounding."""
    if isinstance(b, list | tuple):
        same_length = len(a) == len(b)
        return same_length and all(near(x, y, dtype) for x, y in zip(a, b, strict=True))
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(near(a[key], b[key], dtype) for key in b)
    if isinstance(b, np.ndarray | float):
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = max(1.0, float(np.abs(y[np.isfinite(y)]).max(initial=0)))
        if x.shape != y.shape:
            return False
        same = (np.isnan(x) & np.isnan(y)) | (x == y)
        with np.errstate(all="ignore"):
            return x.shape == y.shape and bool(
                (same | (abs(x - y) <= TOLERANCE[dtype] * scale)).all()
            )
    return True


def run(case: Case) -> list[str]:
    """The complaints about one case."""
    with tempfile.TemporaryDirectory() as folder:
        return list(complaints(case, Path(folder)))


def remember() -> None:
    """Make the classes of ``tests/misbehaving.py`` known to files."""
    Layer.registry["Scale"] = Scale
    Loss.registry["distance"] = Distance
    Optimizer.registry["Descent"] = Descent
    Schedule.registry["Rates"] = Rates


def run_here(first: int, cases: int, seed: int) -> int:
    """Run cases in this process; how many failed. Each is named before it begins."""
    remember()
    failed = 0
    for number in range(first, first + cases):
        print(f"case {number}", file=sys.stderr, flush=True)
        case = Case(RandomDice(seed, number))
        wrong = run(case)
        if wrong:
            failed += 1
            print(f"--seed {seed} --first {number}: {case}", *wrong[:4], sep="\n    ", flush=True)
    return failed


def run_apart(first: int, cases: int, seed: int) -> int:
    """Run cases in a process of their own; how many failed. After a crash the rest goes on."""
    failed, end = 0, first + cases
    while first < end:
        here = [sys.executable, str(Path(__file__).resolve()), "--here", f"--seed={seed}"]
        done = subprocess.run(
            [*here, f"--first={first}", f"--cases={end - first}"],
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout, end="", flush=True)
        begun = [line for line in done.stderr.splitlines() if line.startswith("case ")]
        if done.returncode in (0, 1) and len(begun) == end - first:
            return failed + sum(line.startswith("--seed") for line in done.stdout.splitlines())
        number = int(begun[-1].split()[1]) if begun else first
        failed += 1 + sum(line.startswith("--seed") for line in done.stdout.splitlines())
        last = done.stderr.strip().splitlines()[-1:]
        print(f"--seed {seed} --first {number}: the process ended with {done.returncode}: {last}")
        first = number + 1
    return failed


def main(
    cases: Annotated[int, typer.Option(help="How many.")] = 5000,
    seed: Annotated[int, typer.Option(help="Another seed, other cases.")] = 0,
    first: Annotated[int, typer.Option(help="Number of the first case.")] = 0,
    seconds: Annotated[float, typer.Option(help="Stop after so long; go on with --first.")] = 1e9,
    here: Annotated[bool, typer.Option("--here", help="In this process.")] = False,
) -> None:
    """Let objects of a user's own misbehave."""
    if here:
        sys.exit(1 if run_here(first, cases, seed) else 0)
    start, failed, number = perf_counter(), 0, first
    while number < first + cases and perf_counter() - start < seconds and failed < 25:
        some = min(BATCH, first + cases - number)
        failed += run_apart(number, some, seed)
        number += some
    seconds = perf_counter() - start
    print(f"{number - first} cases from {first} of seed {seed}, {seconds:.0f} s: {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
