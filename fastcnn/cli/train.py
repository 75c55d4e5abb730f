"""``fastcnn train``: train a net on MNIST or a similar data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastcnn.cli.options import Data, Threads, check_output
from fastcnn.cli.outcomes import INTERRUPTED, plain_errors
from fastcnn.cli.train_options import (
    Augments,
    BatchSize,
    CacheFolder,
    CheckpointFile,
    ColorName,
    Distributed,
    Epochs,
    Images,
    ModelFile,
    NetName,
    OptimizerName,
    Patience,
    Rate,
    ReportFile,
    Shards,
    Side,
    TrainingSeed,
)

if TYPE_CHECKING:
    from rich.console import Console

    from fastcnn.distributed import Group
    from fastcnn.models.sequential import Sequential
    from fastcnn.nn.optimizers import Optimizer
    from fastcnn.recipes.training import Settings, Trained


def train(
    net: NetName = None,
    data: Data = None,
    images: Images = None,
    color: ColorName = None,
    cache: CacheFolder = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    optimizer: OptimizerName = None,
    lr: Rate = None,
    augment: Augments = None,
    seed: TrainingSeed = None,
    size: Side = None,
    threads: Threads = None,
    save: ModelFile = None,
    resume: CheckpointFile = None,
    report: ReportFile = None,
    distributed: Distributed = False,
    shards: Shards = None,
    patience: Patience = None,
) -> None:
    """Train a net on digits or on your own pictures, test it, and save it.

    A part of the training images is held out for validation. The test images are used once, at
    the end. Ctrl-C or SIGTERM ends the training with a checkpoint. --resume continues from it, to
    the same weights as without the interrupt. --report writes one page with learning curves,
    mistakes, filters and feature maps, the net, the command that repeats the training, and the
    machine.

    With --distributed, as in `mpiexec -n 4 fastcnn train --distributed`, several processes train
    one net. Their number does not change the weights.
    """
    with plain_errors():
        from rich.console import Console

        from fastcnn.core.settings import set_num_threads
        from fastcnn.core.terminal import with_width
        from fastcnn.recipes import training

        _check_files(save, report)
        if threads is not None:
            set_num_threads(threads)
        if images is not None and data is not None:
            raise ValueError("--images and --data cannot be given together")
        if images is None and color is not None:
            raise ValueError("--color needs --images")
        changes: dict[str, Any] = {
            "batch_size": batch_size,
            "optimizer": optimizer,
            "learning_rate": lr,
            "augment": augment,
            "seed": seed,
            "size": size,
            "color": None if images is None else color or "rgb",
        }
        folder = str(images.resolve()) if images else str(data.absolute()) if data else None
        store = None if cache is None else str(cache.absolute())
        if resume is None:
            settings = _new_settings(net, changes, epochs, folder, store)
            usual = Path(f"fastcnn-{settings.net}.safetensors")
        else:
            settings = _settings_of(resume, {"net": net, **changes}, epochs, folder, store)
            usual = training.save_of(resume) or Path(f"fastcnn-{settings.net}.safetensors")
        console = with_width(Console(highlight=False))
        group = _group(distributed, shards, patience, resume)
        result = _train(settings, save or usual, resume, console, group)
        if group is None or group.rank == 0:
            _print(console, settings, result)
            if report is not None and result.test is not None:
                _write_report(report, settings, result, console)
    if result.test is None:
        if group is not None:
            group.leave()
        raise typer.Exit(INTERRUPTED)


def _check_files(save: Path | None, report: Path | None) -> None:
    """Raise an error, before the training, for files that could not be written."""
    if save is not None and save.suffix.lower() == ".onnx":
        raise ValueError(
            f"--save must be a .safetensors file, which `fastcnn convert` makes an ONNX file "
            f"of, got {str(save)!r}"
        )
    if report is not None:
        check_output("--report", report)
        _check_report(report)


def _train(
    settings: Settings,
    model_file: Path,
    resume: Path | None,
    console: Console,
    group: Group | None,
) -> Trained:
    """The result of the training; a loss that is not finite raises an error with advice."""
    from fastcnn.recipes import training

    try:
        return training.train(settings, model_file, resume, console, _prepare, group)
    except FloatingPointError as error:
        reason = str(error).partition("; the model keeps")[0]
        raise FloatingPointError(
            f"{reason}. A lower rate may help: --lr {settings.learning_rate / 10:g}"
        ) from None


def _write_report(path: Path, settings: Settings, result: Trained, console: Console) -> None:
    from fastcnn.core.files import write_whole
    from fastcnn.recipes.report import page

    write_whole(path, page(settings, result).encode())
    _say(console, f"report: {path}")


def _check_report(path: Path) -> None:
    """Raise an error, before the training, for a report that could not be made."""
    from fastcnn.plots.canvas import require_matplotlib

    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--report must be an .html file, got {str(path)!r}")
    require_matplotlib()


def _prepare(model: Sequential, optimizer: Optimizer) -> None:
    from fastcnn.cli.compiling import compile_kernels

    compile_kernels(model, training=True, optimizer=optimizer)


def _group(
    distributed: bool, shards: int | None, patience: float | None, resume: Path | None
) -> Group | None:
    """The processes that train together, or None; a training that goes on keeps its shards."""
    from fastcnn.distributed import PATIENCE, alone, world
    from fastcnn.recipes.training import shards_of

    if patience is not None and not distributed:
        raise ValueError(
            f"--patience needs --distributed, because one process waits for no other, got "
            f"{patience:g}"
        )
    if resume is not None and shards is not None:
        raise ValueError("--shards cannot be given with --resume: the training has shards already")
    number = shards if resume is None else shards_of(resume)
    if distributed:
        seconds = PATIENCE if patience is None else patience
        return world(8 if number is None else number, patience=seconds)
    return None if number is None else alone(number)


def _new_settings(
    net: str | None,
    changes: dict[str, Any],
    epochs: int | None,
    folder: str | None,
    cache: str | None,
) -> Settings:
    """The settings of a net by its name with changes; small sets of pictures get more epochs."""
    from dataclasses import replace

    from fastcnn.recipes import training

    name = training.DEFAULT_NET if net is None else net.lower().replace("-", "")
    result = training.settings_for(name, epochs=epochs, data=folder, cache=cache, **changes)
    if changes["color"] is not None and folder is not None and epochs is None:
        result = replace(result, epochs=training.epochs_on_pictures(folder, result))
    return result


def _settings_of(
    path: Path,
    changes: dict[str, Any],
    epochs: int | None,
    folder: str | None,
    cache: str | None,
) -> Settings:
    """The settings in a checkpoint, with new epochs, data and cache; other ``changes`` raise."""
    from dataclasses import replace

    from fastcnn.recipes.training import settings_of

    names = {"learning_rate": "lr", "batch_size": "batch-size", "color": "images"}
    for name, value in changes.items():
        if value is not None:
            raise ValueError(
                f"--{names.get(name, name)} cannot be given with --resume: the training goes on "
                "with its own settings"
            )
    settings = settings_of(path)
    return replace(
        settings,
        epochs=epochs or settings.epochs,
        data=folder or settings.data,
        cache=cache or settings.cache,
    )


def _print(console: Console, settings: Settings, result: Trained) -> None:
    if result.test is None:
        epochs = result.history.epochs
        console.print(f"interrupted after {epochs} of {settings.epochs} epochs")
        if result.checkpoint is not None:
            _say(console, f"go on with: fastcnn train --resume {result.checkpoint}")
        return
    console.print(
        f"[bold]test accuracy {result.test['accuracy']:.2%}[/], loss {result.test['loss']:.4f}; "
        f"trained in {result.seconds:.1f} s"
    )
    if result.saved is not None:
        _say(console, f"saved as {result.saved}")
        _say(console, f"try: fastcnn predict {result.saved} picture.png")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
