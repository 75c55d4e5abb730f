"""Other libraries that do the same, each imported when it is used and skipped where it is not here.

A peer is a module with ``FAMILY``, ``set_threads(n)`` and ``net_runners(task)``, which yields
runners, and who does not take part with the reason.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from fastcnn.benchmark.contest import Contest, Runner, Skipped
from fastcnn.benchmark.nets import NetTask


class Peer(NamedTuple):
    """A library, the module here that runs it, and the packages that it takes."""

    family: str
    module: str
    packages: tuple[str, ...]


PEERS = {
    "torch": Peer("PyTorch", "fastcnn.benchmark.peers.pytorch", ("torch",)),
    "onnxruntime": Peer(
        "ONNX Runtime", "fastcnn.benchmark.peers.onnx_runtime", ("onnxruntime", "onnx")
    ),
    "jax": Peer("JAX", "fastcnn.benchmark.peers.xla", ("jax",)),
}


def missing(name: str) -> str | None:
    """Why a peer cannot take part here, or None."""
    lacking = [package for package in PEERS[name].packages if find_spec(package) is None]
    if lacking:
        return f"not installed (pip install {' '.join(lacking)})"
    return None


def loaded(name: str, threads: int) -> Any:
    """The peer's module, set to the number of threads."""
    module = import_module(PEERS[name].module)
    module.set_threads(threads)
    return module


def join_net(contest: Contest, task: NetTask, names: tuple[str, ...], threads: int) -> None:
    """Enter the peers into a net's contest: runners, or the reason why not."""
    for name in names:
        family = PEERS[name].family
        reason = missing(name)
        if reason is not None:
            contest.skipped.append(Skipped(family, reason))
            continue
        try:
            for found in loaded(name, threads).net_runners(task):
                if isinstance(found, Runner):
                    contest.runners.append(found)
                else:
                    contest.skipped.append(found)
        except (NotImplementedError, RuntimeError) as error:
            contest.skipped.append(Skipped(family, str(error)))
