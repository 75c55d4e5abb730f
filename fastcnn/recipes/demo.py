"""``fastcnn demo``: the article's CNN on MNIST, first on every engine, then in training.

The first part runs the script of the article's part 1 on each engine, with the article's printed
lines: an untrained net on the first 1,000 test images, one at a time, in float64. The losses are
compared within the derived bound. In the second part the same net learns from all training images
on the fastest engine.

All printed numbers except times, and numbers that follow from times, depend only on the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcnn.article import ArticleNet
from fastcnn.core.tables import fitted_table
from fastcnn.core.terminal import display, with_width
from fastcnn.data.datasets import load_mnist
from fastcnn.data.pictures import drawing
from fastcnn.engine.registry import engines
from fastcnn.models.model import Model
from fastcnn.models.nets import article
from fastcnn.models.sequential import Sequential
from fastcnn.nn.optimizers import SGD
from fastcnn.nn.schedules import Step
from fastcnn.proof.article_net import article_loss_bounds
from fastcnn.train.callbacks import Callback

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

# These settings were chosen on the last 10,000 training images, which the net had not trained on.
# The test images had no influence.
BATCH = 32
MOMENTUM = 0.9
LEARNING_RATE = 0.03
DECAY = 0.2  # each epoch's rate is this share of the last one's

EPOCHS = 2
_PICTURE = 28  # characters of a digit
_HUNDRED = 100  # images per printed line, as in the article


@dataclass(frozen=True, eq=False)
class EngineRun:
    """The article's script on one engine. ``compiling`` is the time of the first image, which may
    compile kernels. ``seconds`` is the time of all images afterwards."""

    engine: str
    losses: NDArray[np.float64]
    correct: int
    seconds: float
    compiling: float


@dataclass(frozen=True)
class Agreement:
    """An engine compared with the first one: the largest difference of a loss, and its bound."""

    engine: str
    difference: float
    bound: float
    ok: bool
    speed_up: float


@dataclass(frozen=True, eq=False)
class DemoResult:
    """The results of the demo. ``accuracies`` are on the test images, after each epoch."""

    runs: tuple[EngineRun, ...]
    agreements: tuple[Agreement, ...]
    accuracies: tuple[float, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the engines agree."""
        return all(agreement.ok for agreement in self.agreements)


def demo(
    *,
    seed: int = 0,
    article_images: int = 1000,
    train_images: int | None = None,
    test_images: int | None = None,
    epochs: int = EPOCHS,
    console: Console | None = None,
) -> DemoResult:
    """Run the demo and print it.

    Args:
        seed: the seed of the parameters and of the order of the training images.
        article_images: number of test images for the article's script.
        train_images: number of training images that the net learns from; None for all.
        test_images: number of test images after training; None for all.
        epochs: number of passes over the training images.
        console: the console to print on; None for the standard output.

    Returns:
        The results, as :class:`DemoResult`.

    Raises:
        DatasetError: MNIST is missing or damaged.
    """
    from rich.console import Console

    start = perf_counter()
    console = with_width(Console(highlight=False)) if console is None else console
    (x_train, y_train), (x_test, y_test) = load_mnist()
    x_train, y_train = x_train[:train_images], y_train[:train_images]
    x_few, y_few = x_test[:article_images], y_test[:article_images]
    x_test, y_test = x_test[:test_images], y_test[:test_images]

    console.rule("[bold]1. The article's net, one image at a time, on each engine")
    names = tuple(reversed(engines()))  # the specification first
    runs = tuple(_run_article(name, x_few, y_few, seed, console.print) for name in names)
    agreements = _agreements(runs, x_few, y_few, seed)
    _print_agreements(console, runs, agreements)

    console.rule(f"[bold]2. The same net learns, on {engines()[0]}")
    model = Sequential(article(), (28, 28, 1), seed=seed)
    accuracies = _train(console, model, (x_train, y_train), (x_test, y_test), epochs, seed)

    console.rule("[bold]3. In short")
    result = DemoResult(runs, agreements, accuracies, perf_counter() - start)
    _print_digits(console, model, x_test, y_test)
    _print_summary(console, result, len(x_test))
    return result


def _article_net(engine: str, seed: int) -> ArticleNet:
    return ArticleNet(engine=engine, rng=np.random.default_rng(seed))


def _run_article(
    engine: str, images: Images, labels: Labels, seed: int, say: Callable[[str], None]
) -> EngineRun:
    """The loop of the article's part 1, with its printed lines."""
    say(f"\n[bold cyan]{engine}[/]")
    net = _article_net(engine, seed)
    start = perf_counter()
    if len(images):
        net.forward(images[0], int(labels[0]))
    compiling = perf_counter() - start
    say("MNIST CNN initialized!")

    losses = np.zeros(len(images))
    correct = right = 0
    start = perf_counter()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        _, losses[i], hit = net.forward(image, int(label))
        correct, right = correct + hit, right + hit
        if (i + 1) % _HUNDRED == 0:
            mean = losses[i + 1 - _HUNDRED : i + 1].mean()
            say(
                rf"\[Step {i + 1}] Past 100 steps: "
                f"Average Loss {mean:.3f} | Accuracy: {right}%"
            )
            right = 0
    return EngineRun(engine, losses, correct, perf_counter() - start, compiling)


def _agreements(
    runs: tuple[EngineRun, ...], images: Images, labels: Labels, seed: int
) -> tuple[Agreement, ...]:
    """Compare each engine's losses with the first engine's, by the bound of each loss."""
    net, reference = _article_net(runs[0].engine, seed), runs[0]
    bound = article_loss_bounds(
        images[..., np.newaxis] / 255 - 0.5,
        labels,
        net.conv.filters.transpose(1, 2, 0)[:, :, np.newaxis, :],
        net.softmax.weights,
        net.softmax.biases,
    )
    results = []
    for run in runs[1:]:
        difference = np.abs(run.losses - reference.losses)
        at = int(difference.argmax()) if len(difference) else None
        results.append(
            Agreement(
                run.engine,
                0.0 if at is None else float(difference[at]),
                0.0 if at is None else float(bound[at]),
                bool((difference <= bound).all()) and run.correct == reference.correct,
                reference.seconds / run.seconds,
            )
        )
    return tuple(results)


def _print_agreements(
    console: Console, runs: tuple[EngineRun, ...], agreements: tuple[Agreement, ...]
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    first = runs[0]
    count = len(first.losses)
    cells = [
        ("engine", "images/s", "speed-up", "correct", "largest difference", "bound", "verdict"),
        (first.engine, f"{count / first.seconds:,.0f}", "1×", str(first.correct), "", "",
         "reference"),
    ]  # fmt: skip
    for run, agreement in zip(runs[1:], agreements, strict=True):
        cells.append(
            (
                run.engine,
                f"{count / run.seconds:,.0f}",
                f"{agreement.speed_up:,.0f}×",
                str(run.correct),
                f"{agreement.difference:.1e}",
                f"{agreement.bound:.1e}",
                "agrees" if agreement.ok else "DISAGREES",
            )
        )
    styles = {"agrees": "green", "DISAGREES": "bold red"}
    headings, *rows = fitted_table(cells, console.width - 2, [], [3, 5]).rows
    for heading in headings:
        is_text = heading in ("engine", "verdict")
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(text, styles.get(text, "")) for text in row))
    console.print()
    console.print(table)
    console.print(
        "The largest difference of any image's loss from the naive engine's, and what "
        "rounding in another order may do there. An untrained net guesses: about 1 digit "
        "in 10 is right.\n",
        style="dim",
    )


class _Lines(Callback):
    """A bar while an epoch runs, and a line after it, with the accuracy on the test images."""

    def __init__(
        self, console: Console, bar: Progress, images: Images, labels: Labels, epochs: int
    ) -> None:
        self.accuracies: list[float] = []
        self._console, self._bar, self._epochs = console, bar, epochs
        self._images, self._labels = images, labels

    def on_train_begin(self, model: Model, logs: dict[str, Any]) -> None:
        self._samples: int = logs["samples"]

    def on_epoch_begin(self, model: Model, epoch: int) -> None:
        self._begin = perf_counter()
        self._task = self._bar.add_task(
            f"epoch {epoch + 1}/{self._epochs}",
            total=self._samples,
            loss=0.0,
            accuracy=0.0,
            rate=0.0,
        )

    def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
        samples = logs["samples"]
        rate = samples / (perf_counter() - self._begin)
        self._bar.update(
            self._task, completed=samples, loss=logs["loss"], accuracy=logs["accuracy"], rate=rate
        )

    def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
        rate = self._samples / max(perf_counter() - self._begin, 1e-9)
        self._bar.remove_task(self._task)
        digits = model.predict_classes(self._images)
        self.accuracies.append(float((digits == self._labels).mean()))
        self._console.print(
            f"epoch {epoch + 1}: loss {logs['loss']:.3f}, training "
            f"{logs['accuracy']:.2%}, [bold]test accuracy {self.accuracies[-1]:.2%}[/] "
            f"[dim]({rate:,.0f} images/s)[/]"
        )


def _train(
    console: Console,
    model: Sequential,
    train: tuple[Images, Labels],
    test: tuple[Images, Labels],
    epochs: int,
    seed: int,
) -> tuple[float, ...]:
    """Train with momentum; the accuracies on the test images, after each epoch."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    images, labels = train
    start = perf_counter()
    rehearsal_model = Sequential(article(), (28, 28, 1), seed=seed)  # compiles what training needs
    rehearsal_model.train_on_batch(images[:BATCH], labels[:BATCH])
    rehearsal_model.predict(images[:BATCH])
    console.print(
        f"{len(images):,} training images, {epochs} epochs, batches of {BATCH} "
        f"(kernels ready after {perf_counter() - start:.1f} s)"
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(
            "loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.1%}  "
            "{task.fields[rate]:,.0f} images/s"
        ),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=True)
    lines = _Lines(console, bar, *test, epochs)
    rate = Step(LEARNING_RATE, every=-(-len(images) // BATCH), factor=DECAY)
    with display(bar):
        model.fit(
            images,
            labels,
            epochs,
            BATCH,
            SGD(rate, momentum=MOMENTUM),
            seed=seed,
            verbose=0,
            callbacks=[lines],
        )
    return tuple(lines.accuracies)


def _print_digits(console: Console, model: Sequential, images: Images, labels: Labels) -> None:
    """Print two test digits: the most certain right prediction and the most certain wrong one."""
    probabilities = model.predict(images)
    digits, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = digits == labels
    columns = []
    for title, among in (("Surest of all", right), ("Most surely wrong", ~right)):
        if among.any():
            k = int(np.where(among, confidence, -1).argmax())
            caption = f"a {labels[k]}, read as {digits[k]} ({confidence[k]:.2%})"
            columns.append([title, caption, *drawing(images[k])])
    beside = console.width >= 2 * _PICTURE + 2
    column = min(34, (console.width - 2) // 2)
    for group in [columns] if beside else [[one] for one in columns]:
        for cells in zip(*group, strict=True):
            if any(cell.strip() for cell in cells):
                line = "  ".join(cell.ljust(column) for cell in cells).rstrip()
                console.print(line, markup=False, soft_wrap=True)


def _print_summary(console: Console, result: DemoResult, test_images: int) -> None:
    slow, fast = result.runs[0], min(result.runs, key=lambda run: run.seconds)
    count = len(slow.losses)
    lines = [
        f"The loops you can read took {slow.seconds:.1f} s for {count:,} digits.",
        f"The same numbers from {fast.engine}: {fast.seconds:.2f} s, "
        f"{slow.seconds / fast.seconds:,.0f} times as fast.",
    ]
    lines.append(
        "No loss differs by more than rounding explains."
        if result.ok
        else "The engines DISAGREE: run `fastcnn compare` to see where."
    )
    if result.accuracies:
        mistakes = round((1 - result.accuracies[-1]) * test_images)
        lines.append(
            f"Trained, the net reads {test_images - mistakes:,} of {test_images:,} digits it "
            f"had never seen ({result.accuracies[-1]:.2%})."
        )
    lines.append(f"All of this took {result.seconds:.0f} s on this machine's CPU.")
    console.print()
    console.print("\n".join(lines), style="bold")
