"""``fastcnn info``: facts about this machine and its software."""

from __future__ import annotations

from typing import Any

import typer

from fastcnn.cli.options import AsJson
from fastcnn.cli.outcomes import plain_errors


def info(as_json: AsJson = False) -> None:
    """Show facts about this machine: processor, threads, versions."""
    with plain_errors():
        from fastcnn.engine.machine import facts

        machine_facts = facts()
        if as_json:
            from json import dumps

            typer.echo(dumps(machine_facts, indent=2))
        else:
            for name, value in _lines(machine_facts):
                typer.echo(f"{name:<13} {value}")


def _lines(machine: dict[str, Any]) -> list[tuple[str, str]]:
    if machine["isa"] is None:
        registers = "not known without Numba"
    else:
        registers = f"{machine['isa']}, registers of {machine['vector_bytes']} bytes"
    absent = "none: kernels compile in each process" if machine["isa"] else "none without Numba"
    versions = {"python": machine["python"], **machine["packages"]}
    return [
        ("fastcnn", f"{machine['fastcnn']} in {machine['folder']}"),
        ("processor", f"{machine['processor']} ({machine['architecture']})"),
        ("cores", f"{machine['usable_cores']} of {machine['cores']} usable"),
        ("instructions", registers),
        ("threads", f"{machine['threads']} (decided by: {machine['threads_decided_by']})"),
        ("engines", ", ".join(machine["engines"])),
        ("kernel cache", machine["kernel_cache"] or absent),
        ("system", machine["system"]),
        *((name, version or "not installed") for name, version in versions.items()),
    ]
