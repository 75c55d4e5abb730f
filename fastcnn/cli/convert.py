"""``fastcnn convert``: a model of fastcnn as an ONNX file, and the other way."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.options import AsJson, check_output
from fastcnn.cli.outcomes import plain_errors
from fastcnn.cli.reading import Layout, NamesOption, Reading, ScalingOption, SizeOption, reading_of


class Of(StrEnum):
    """What the new file computes."""

    predictions = "predictions"
    scores = "scores"


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A file that fastcnn saved, or an .onnx file.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The .onnx or .safetensors file to write.")
    ],
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="Images of the .onnx file: (N, H, W, C) or (N, C, H, W). Default of a new file: "
            "channels_last; of a file to read: the side of 1 or 3 numbers the channels."
        ),
    ] = None,
    of: Annotated[
        Of,
        typer.Option(
            help="Outputs of the .onnx file: what predict returns, or scores before a last softmax "
            "or sigmoid."
        ),
    ] = Of.predictions,
    scaling: ScalingOption = None,
    size: SizeOption = None,
    classes: NamesOption = None,
    as_json: AsJson = False,
) -> None:
    """Convert a saved model to an ONNX file, or the other way.

    Other runtimes read ONNX files. The output shows the inputs and outputs of the new file. A file
    that has the name already is replaced, once the new one is whole.

    Options say what the ONNX file of another program leaves open. With --scaling the new file takes
    bytes.
    """
    with plain_errors():
        check_output("OUT", target)
        _check_kinds(source, target)
        if target.suffix.lower() == ".onnx":
            reading = reading_of(scaling, size, None, False, classes)
            facts = _to_onnx(source, target, reading, layout or Layout.channels_last, of)
        else:
            facts = _from_onnx(source, target, reading_of(scaling, size, layout, False, classes))
        if as_json:
            from json import dumps

            typer.echo(dumps(facts, indent=2))
            return
        number = f"{facts['nodes']} nodes" if "nodes" in facts else f"{facts['layers']} layers"
        typer.echo(f"{facts['file']}: {number}, {facts['bytes']:,} bytes")
        for kind in ("inputs", "outputs"):
            for one in facts[kind]:
                typer.echo(f"  {kind[:-1]:<6} {one['name']}  {one['dtype']}  {tuple(one['shape'])}")


def _check_kinds(source: Path, target: Path) -> None:
    """Raise ``ValueError`` with advice for files that are not converted."""
    kind, new_kind = source.suffix.lower(), target.suffix.lower()
    if kind in (".pt", ".pth", ".bin", ".h5", ".keras", ".ckpt", ".pkl"):
        raise ValueError(
            f"IN must be a model of fastcnn or ONNX, got {str(source)!r}, which holds weights; "
            f"write the net in layers of fastcnn, and call fastcnn.load_weights(model, "
            f"{str(source)!r})"
        )
    if (kind == ".onnx") == (new_kind == ".onnx") or new_kind not in (".onnx", ".safetensors"):
        other, what = (".safetensors", "is an") if kind == ".onnx" else (".onnx", "is no")
        raise ValueError(
            f"OUT must end in {other}, because IN {what} .onnx file, got {str(target)!r}"
        )


def _to_onnx(
    source: Path, target: Path, reading: Reading, layout: Layout, of: Of
) -> dict[str, Any]:
    from fastcnn.cli.models import open_model
    from fastcnn.exchange.onnx_export import borders, onnx_model, write

    proto = onnx_model(open_model(source, reading), layout.value, of.value)
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


def _from_onnx(source: Path, target: Path, reading: Reading) -> dict[str, Any]:
    from fastcnn.cli.models import open_model

    model: Any = open_model(source, reading, needs_size=True)
    model.save(target)

    def described(names: list[str], shapes: Any) -> list[dict[str, Any]]:
        return [
            {"name": name, "dtype": model.dtype.name, "shape": ["batch", *shape]}
            for name, shape in zip(names, shapes, strict=True)
        ]

    return {
        "model": str(source),
        "file": str(target),
        "bytes": target.stat().st_size,
        "layers": len(model.layers),
        "inputs": described(model._input_names(), model._known_shapes()),
        "outputs": described(model._output_names(), model._output_shapes()),
    }
