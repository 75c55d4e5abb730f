"""``fastcnn train``: train a net on MNIST or a similar data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcnn.cli.options import Data, Threads, check_output
from fastcnn.cli.outcomes import INTERRUPTED, plain_errors

if TYPE_CHECKING:
    from rich.console import Console

    from fastcnn.distributed import Group
    from fastcnn.models.sequential import Sequential
    from fastcnn.nn.optimizers import Optimizer
    from fastcnn.recipes.training import Settings, Trained


def train(
    net: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="article, lenet5, small, wide or resnet8. [default: small]"
        ),
    ] = None,
    data: Data = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Your own pictures, of any sizes and formats: a folder for each class.",
        ),
    ] = None,
    color: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="rgb or gray, for --images. [default: rgb]"),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep the scaled pictures of --images in a file there, so that later trainings "
            "decode nothing and the set may be larger than the memory.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Default: the net's; with --images more if they are few."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Default: the net's.")] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="sgd, adam, adamw or rmsprop. Default: the net's."),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(min=0, help="The highest rate of the cycle. Default: the net's."),
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment/--no-augment",
            help="Shift, turn and scale the images a little. Default: the net's.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of all random numbers. [default: 0]"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, help="The side that pictures are scaled to. [default for --images: 64]"
        ),
    ] = None,
    threads: Threads = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of the model. Default: fastcnn-NET.safetensors"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Continue from a checkpoint, with its settings."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page with pictures; needs fastcnn[plots]."),
    ] = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed", help="Train with all processes of mpiexec or srun (extra mpi)."
        ),
    ] = False,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Parts of each batch, which decide the bits: with --distributed [default: 8].",
        ),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long the other processes wait for one that may hang, where nothing says how "
            "long its work takes: with --distributed [default: 600].",
        ),
    ] = None,
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
        from dataclasses import replace

        from rich.console import Console

        from fastcnn.core.settings import set_num_threads
        from fastcnn.core.terminal import with_width
        from fastcnn.recipes import training

        if save is not None and save.suffix.lower() == ".onnx":
            raise ValueError(
                f"--save must be a .safetensors file, which `fastcnn convert` makes an ONNX file "
                f"of, got {str(save)!r}"
            )
        if report is not None:
            check_output("--report", report)
            _check_report(report)
        if threads is not None:
            set_num_threads(threads)
        fixed: dict[str, Any] = {
            "batch_size": batch_size,
            "optimizer": optimizer,
            "learning_rate": lr,
            "augment": augment,
            "seed": seed,
            "size": size,
        }
        folder = None if data is None else str(data.absolute())
        if images is not None:
            if data is not None:
                raise ValueError("--images and --data cannot be given together")
            folder, fixed["color"] = str(images.resolve()), color or "rgb"
        elif color is not None:
            raise ValueError("--color needs --images")
        store = None if cache is None else str(cache.absolute())
        if resume is None:
            name = training.DEFAULT_NET if net is None else net.lower().replace("-", "")
            run_settings = {"epochs": epochs, "data": folder, "cache": store}
            settings = training.settings_for(name, **fixed, **run_settings)
            if images is not None and epochs is None:
                number = training.epochs_on_pictures(images, settings)
                settings = replace(settings, epochs=number)
        else:
            settings = _settings_of(resume, {"net": net, **fixed}, epochs, folder, store)
        usual = None if resume is None else training.save_of(resume)
        place = save or usual or Path(f"fastcnn-{settings.net}.safetensors")
        console = with_width(Console(highlight=False))
        group = _group(distributed, shards, patience, resume)
        try:
            result = training.train(settings, place, resume, console, _prepare, group)
        except FloatingPointError as error:
            reason = str(error).partition("; the model keeps")[0]
            raise FloatingPointError(
                f"{reason}. A lower rate may help: --lr {settings.learning_rate / 10:g}"
            ) from None
        is_first = group is None or group.rank == 0
        if is_first:
            _print(console, settings, result)
        if is_first and report is not None and result.test is not None:
            from fastcnn.core.files import write_whole
            from fastcnn.recipes.report import page

            write_whole(report, page(settings, result).encode())
            _say(console, f"report: {report}")
    if result.test is None:
        if group is not None:
            group.leave()
        raise typer.Exit(INTERRUPTED)


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


def _settings_of(
    path: Path,
    fixed: dict[str, Any],
    epochs: int | None,
    folder: str | None,
    cache: str | None,
) -> Settings:
    """The settings in a checkpoint, with new epochs, data and cache; ``fixed`` ones raise."""
    from dataclasses import replace

    from fastcnn.recipes.training import settings_of

    names = {"learning_rate": "lr", "batch_size": "batch-size", "color": "images"}
    for name, value in fixed.items():
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
        done = result.history.epochs
        console.print(f"interrupted after {done} of {settings.epochs} epochs")
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
