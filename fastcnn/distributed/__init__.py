"""Data-parallel training: several processes train one model, to the same bits as one process.

    group = fastcnn.distributed.world()
    model.fit(x, y, group=group, seed=0)

run by ``mpiexec -n 4 python train.py``. Each process takes its share of each batch, and gradients
are summed along one fixed tree (:mod:`fastcnn.distributed.tree`). docs/distributed.md is the page
for users.
"""

from __future__ import annotations

from fastcnn.core.scalars import above_zero
from fastcnn.distributed.groups import Group, Statistics

__all__ = ["Group", "alone", "world"]

PATIENCE = 600.0
"""Seconds that an activity without a history may take, unless ``world`` says otherwise."""


def alone(shards: int = 8, statistics: Statistics = "batch") -> Group:
    """A group of this process, which needs no MPI.

    A training with it gives the same weights, to the bit, as one of several processes with the same
    ``shards`` and ``statistics``.

    Args:
        shards: parts that each batch is cut into.
        statistics: what a batch normalisation takes its mean and variance of in training: "batch"
            for the whole batch, "shard" for each shard.

    Raises:
        TypeError, ValueError: ``shards`` is no integer of at least 1, or ``statistics`` is another
            word.

    Example:
        >>> alone().size, alone(shards=16).shards
        (1, 16)
    """
    return Group(shards, statistics)


def world(shards: int = 8, statistics: Statistics = "batch", patience: float = PATIENCE) -> Group:
    """The group of all processes that ``mpiexec`` or ``srun`` has started.

    It starts MPI, if mpi4py has not done so, a thread that watches the other processes, and a small
    program that names this process if it is killed. Unless
    ``FASTCNN_NUM_THREADS`` or ``set_num_threads`` has decided, the number of the kernels' threads
    becomes that of the cores which MPI has bound to this process; cores that several processes may
    use are divided among them.

    Args:
        shards: parts that each batch is cut into, at least as many as processes. The shards decide
            how sums are rounded, so trainings with the same number give the same weights, to the
            bit, on any number of processes. A multiple of the number of processes shares the work
            evenly.
        statistics: as for :func:`alone`.
        patience: seconds for which the others wait for a process that lives but does not move on,
            where nothing says how long it may take: before a training, in a first step that may
            compile kernels, in a first validation or callback. At least 8 seconds; the last call
            of ``world`` counts.

    Raises:
        ImportError: mpi4py or an MPI library is not installed.
        TypeError, ValueError: as for :func:`alone`, ``shards`` is less than the number of
            processes, or ``patience`` is no positive number.
    """
    Group(shards, statistics)  # its errors come before MPI starts
    limit = above_zero("patience", patience)
    if limit is None:
        raise TypeError("patience must be a number of seconds above 0, got None")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"fastcnn.distributed.world needs mpi4py and an MPI library: pip install "
            f"'fastcnn[mpi]' ({error}); fastcnn.distributed.alone() needs neither"
        ) from None
    from fastcnn.distributed.mpi import MPIGroup

    key = shards, statistics
    if key not in _worlds:
        _worlds[key] = MPIGroup(MPI.COMM_WORLD, shards, statistics, limit)
    _worlds[key].be_patient(limit)
    return _worlds[key]


_worlds: dict[tuple[int, Statistics], Group] = {}
