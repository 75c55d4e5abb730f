"""``fastcnn info``: what fastcnn runs on here."""

from __future__ import annotations

from typing import Any

import typer

from fastcnn.cli.options import AsJson
from fastcnn.cli.outcomes import plain_errors


def info(as_json: AsJson = False) -> None:
    """Show what fastcnn runs on here: processor, threads, cache, versions."""
    with plain_errors():
        from fastcnn.engine.machine import facts

        found = facts()
        if as_json:
            from json import dumps

            typer.echo(dumps(found, indent=2))
        else:
            for name, value in _lines(found):
                typer.echo(f"{name:<13} {value}")


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    if found["isa"] is None:
        registers = "not known without Numba"
    else:
        registers = f"{found['isa']}, registers of {found['vector_bytes']} bytes"
    absent = "none: kernels compile in each process" if found["isa"] else "none without Numba"
    versions = {"python": found["python"], **found["packages"]}
    return [
        ("fastcnn", f"{found['fastcnn']} in {found['folder']}"),
        ("processor", f"{found['processor']} ({found['architecture']})"),
        ("cores", f"{found['usable_cores']} of {found['cores']} usable"),
        ("instructions", registers),
        ("threads", f"{found['threads']} (decided by: {found['threads_decided_by']})"),
        ("engines", ", ".join(found["engines"])),
        ("kernel cache", found["kernel_cache"] or absent),
        ("system", found["system"]),
        *((name, version or "not installed") for name, version in versions.items()),
    ]
