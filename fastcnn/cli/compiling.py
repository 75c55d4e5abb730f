"""The progress bar of commands while kernels compile."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastcnn.models.model import Model
    from fastcnn.nn.optimizers import Optimizer


def compile_kernels(
    model: Model, *, training: bool, optimizer: str | Optimizer | None = None
) -> int:
    """Compile the model's missing kernels, with a bar on the standard error; return their number.

    If the standard error is no terminal, one line appears there when compiling takes long.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from fastcnn.core.terminal import shows_bars

    console = Console(stderr=True)
    if not shows_bars(console):
        return model.compile_kernels(training=training, optimizer=optimizer)
    columns = TextColumn("compiling kernels, once"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=done < total)

        return model.compile_kernels(training=training, optimizer=optimizer, progress=show)
