"""Peers: other libraries that compute the same. Each is imported on use, and skipped if missing.

A peer is a module with ``FAMILY``, ``set_threads(n)``,
``operation_runners(problem, arrays, compiled)`` and ``net_runners(task, compiled)``. The last two
yield runners, and for other cases a ``Skipped`` with the reason. Those of :data:`READERS` read ONNX
files, and also have ``model_runners(task, file)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

from fastcnn.bench.contest import Contest, Runner, Skipped
from fastcnn.bench.nets import NetTask
from fastcnn.bench.operations import make_arrays
from fastcnn.bench.own_models import ModelTask
from fastcnn.bench.standard import StandardTask
from fastcnn.proof.problems import Problem


class Peer(NamedTuple):
    """A library, the module that runs it, and the packages that it needs."""

    family: str
    module: str
    packages: tuple[str, ...]


PEERS = {
    "torch": Peer("PyTorch", "fastcnn.bench.peers.pytorch", ("torch",)),
    "onnxruntime": Peer(
        "ONNX Runtime", "fastcnn.bench.peers.onnx_runtime", ("onnxruntime", "onnx")
    ),
    "openvino": Peer("OpenVINO", "fastcnn.bench.peers.openvino_runtime", ("openvino", "onnx")),
    "litert": Peer("LiteRT", "fastcnn.bench.peers.litert", ("ai_edge_litert",)),
    "jax": Peer("JAX", "fastcnn.bench.peers.xla", ("jax",)),
    "scipy": Peer("SciPy", "fastcnn.bench.peers.scipy_signal", ("scipy",)),
}


READERS = ("onnxruntime", "openvino")
"""The peers that read ONNX files."""


def missing(name: str) -> str | None:
    """Why a peer cannot take part here, or None."""
    lacking = [package for package in PEERS[name].packages if find_spec(package) is None]
    if lacking:
        return f"not installed (pip install {' '.join(lacking)})"
    return None


def versions() -> dict[str, str | None]:
    """The versions of the peers' packages; None for a package that is not installed."""
    result: dict[str, str | None] = {}
    for package in (package for peer in PEERS.values() for package in peer.packages):
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            result[package] = None
    return result


def loaded(name: str, threads: int) -> Any:
    """The peer's module, with its number of threads set."""
    module = import_module(PEERS[name].module)
    module.set_threads(threads)
    return module


def join_operation(
    contest: Contest,
    problem: Problem,
    names: Sequence[str],
    threads: int,
    compiled: bool = True,
) -> None:
    """Enter the peers into an operation's contest, as runners or as skipped with a reason.

    ``compiled`` as for :func:`join_net`.
    """
    arrays = make_arrays(problem)
    _join(contest, names, threads, lambda peer: peer.operation_runners(problem, arrays, compiled))


def join_net(
    contest: Contest,
    task: NetTask | StandardTask,
    names: Sequence[str],
    threads: int,
    compiled: bool = True,
) -> None:
    """Enter the peers into a net's contest, as runners or as skipped with a reason.

    ``compiled`` says whether PyTorch's compiler runs too, which takes some seconds for each net.
    """
    _join(contest, names, threads, lambda peer: peer.net_runners(task, compiled))


def join_model(contest: Contest, task: ModelTask, names: Sequence[str], threads: int) -> None:
    """Enter the peers into the contest of a file's model, as runners or as skipped."""
    file = task.onnx
    readers = [name for name in names if name in READERS]
    for name in names:
        if name not in READERS:
            contest.skipped.append(Skipped(PEERS[name].family, "it reads no ONNX files"))
        elif isinstance(file, Skipped):
            contest.skipped.append(Skipped(PEERS[name].family, file.reason))
    if not isinstance(file, Skipped):
        _join(contest, readers, threads, lambda peer: peer.model_runners(task, file))


def _join(
    contest: Contest,
    names: Sequence[str],
    threads: int,
    enter: Callable[[Any], Iterator[Runner | Skipped]],
) -> None:
    for name in names:
        family = PEERS[name].family
        reason = missing(name)
        if reason is not None:
            contest.skipped.append(Skipped(family, reason))
            continue
        try:
            for entry in enter(loaded(name, threads)):
                if isinstance(entry, Runner):
                    contest.runners.append(entry)
                else:
                    contest.skipped.append(entry)
        except (NotImplementedError, RuntimeError) as error:
            contest.skipped.append(Skipped(family, str(error)))
