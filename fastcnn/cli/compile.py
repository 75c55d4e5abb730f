"""``fastcnn compile``: compile kernels into their cache before they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.options import AsJson
from fastcnn.cli.outcomes import plain_errors


def compile_(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="A model file that fastcnn saved.")
    ] = None,
    net: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A net by its name; may be repeated."),
    ] = None,
    predict_only: Annotated[
        bool, typer.Option("--predict-only", help="Only the kernels of predictions.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compile the kernels that a model needs, and keep them.

    The kernels serve batches of any size. Without a model or a name, the kernels of all named
    nets are compiled. Kernels are compiled once for a processor. Afterwards the first prediction
    of a process takes less than half a second. To put kernels into a container image, set
    NUMBA_CACHE_DIR to a folder of the image.
    """
    with plain_errors():
        from fastcnn.engine.machine import facts
        from fastcnn.engine.registry import engines

        if model is not None and net:
            raise ValueError("give a MODEL or --net NAME, not both")
        if "numba" not in engines():
            raise ValueError("fastcnn compile needs Numba, which is not installed here")
        rows = [_compile(path, name, predict_only) for path, name in _models(model, net)]
        folder = facts()["kernel_cache"]
        if as_json:
            from json import dumps

            typer.echo(dumps({"kernel_cache": folder, "models": rows}, indent=2))
            return
        for row in rows:
            compiled = f"{row['compiled']:>3} kernels compiled in {row['seconds']:.1f} s"
            typer.echo(f"{row['model']:<12} {compiled if row['compiled'] else 'all there'}")
        typer.echo(f"kept in {folder}" if folder else "not kept: no folder can be written to")


def _models(model: Path | None, net: list[str] | None) -> list[tuple[Path | None, str]]:
    from fastcnn.models.nets import NETS

    if model is not None:
        return [(model, model.name)]
    for name in net or ():
        if name not in NETS:
            raise ValueError(f"--net must be one of {', '.join(NETS)}, got {name!r}")
    return [(None, name) for name in net or NETS]


def _compile(path: Path | None, name: str, predict_only: bool) -> dict[str, Any]:
    from time import perf_counter

    from fastcnn.cli.compiling import compile_kernels
    from fastcnn.models.model import Model
    from fastcnn.models.sequential import load_model
    from fastcnn.recipes import training

    start, optimizer = perf_counter(), None
    if path is None:
        model: Model = training.model_for(name)
        optimizer = training.optimizer_for(name)
    else:
        model = load_model(path)
    count = compile_kernels(model, training=not predict_only, optimizer=optimizer)
    return {"model": name, "compiled": count, "seconds": round(perf_counter() - start, 2)}
