"""``fastcnn convert``: a model of fastcnn as an ONNX file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.options import AsJson, check_output
from fastcnn.cli.outcomes import plain_errors


class Layout(StrEnum):
    """Where images have their channels in the new file."""

    channels_last = "channels_last"
    channels_first = "channels_first"


class Of(StrEnum):
    """What the new file computes."""

    predictions = "predictions"
    scores = "scores"


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A .safetensors file that fastcnn saved.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .onnx file to write.")],
    layout: Annotated[
        Layout, typer.Option(help="Images as (N, H, W, C), or as (N, C, H, W).")
    ] = Layout.channels_last,
    of: Annotated[
        Of, typer.Option(help="What predict returns, or scores before a last softmax or sigmoid.")
    ] = Of.predictions,
    as_json: AsJson = False,
) -> None:
    """Convert a saved model to an ONNX file, which other runtimes read.

    The output shows the inputs and outputs of the new file. A file that has the name already is
    replaced, once the new one is whole.
    """
    with plain_errors():
        check_output("OUT", target)
        _check_kinds(source, target)
        facts = _convert(source, target, layout, of)
        if as_json:
            from json import dumps

            typer.echo(dumps(facts, indent=2))
            return
        typer.echo(f"{facts['file']}: {facts['nodes']} nodes, {facts['bytes']:,} bytes")
        for kind in ("inputs", "outputs"):
            for one in facts[kind]:
                typer.echo(f"  {kind[:-1]:<6} {one['name']}  {one['dtype']}  {tuple(one['shape'])}")


def _check_kinds(source: Path, target: Path) -> None:
    """Raise ``ValueError`` with advice for files that are not converted."""
    kinds = source.suffix.lower(), target.suffix.lower()
    if kinds == (".safetensors", ".onnx"):
        return
    if kinds[0] in (".pt", ".pth", ".bin", ".h5", ".keras", ".ckpt"):
        raise ValueError(
            f"IN must be a model of fastcnn, got {str(source)!r}, which holds weights; write the "
            f"net in layers of fastcnn, and call fastcnn.load_weights(model, {str(source)!r})"
        )
    if kinds[0] == ".onnx":
        raise ValueError(
            f"IN must be a model of fastcnn, got {str(source)!r}; ONNX files are not converted"
        )
    if kinds[0] != ".safetensors":
        raise ValueError(
            f"IN must end in .safetensors, got {str(source)!r}; model.save writes such files"
        )
    raise ValueError(f"OUT must end in .onnx, got {str(target)!r}")


def _convert(source: Path, target: Path, layout: Layout, of: Of) -> dict[str, Any]:
    from fastcnn.exchange.onnx_export import borders, onnx_model, write
    from fastcnn.models.sequential import load_model

    proto = onnx_model(load_model(source), layout.value, of.value)
    write(target, proto)
    inputs, outputs = borders(proto)
    return {
        "model": str(source),
        "file": str(target),
        "bytes": target.stat().st_size,
        "nodes": len(proto.graph.node),
        "inputs": inputs,
        "outputs": outputs,
    }
