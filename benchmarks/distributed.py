"""The exchange of gradients: what share of a step it takes here, and what more processes would do.

    mpiexec -n 2 python benchmarks/distributed.py                     with what is measured here
    mpiexec -n 2 python benchmarks/distributed.py --latency 2 --bandwidth 12.5    of a network
    mpiexec -n 2 python benchmarks/distributed.py --delay 1           messages a millisecond late
    mpiexec -n 2 python benchmarks/distributed.py --beside            the speed beside no group
    mpiexec -n 2 python benchmarks/distributed.py --network           steps over the network of MPI

Measured are the time of a message between two processes, without and with many numbers, and for
each net the time of a step of this many processes, and how long the processes wait for gradients.

The model. A sum over P processes takes ⌈log₂ P⌉ rounds (fastcnn/distributed/tree.py). In a round a
process sends and receives all gradients, n bytes, and adds them: start + n / bandwidth + n /
adding. The start is the latency. Large messages wait for the receiver's word, so their start is
longer: it is measured, and three latencies of a network that is given. A step is the computation
plus the exchange. Nothing is hidden, although parts of large nets leave during the backward pass.
Weak scaling: each process has the samples that it has here. Strong scaling: the batch of here is
divided among all, at least one sample for each, and the time for a sample does not change; a real
one grows with fewer samples. The last column is the exchange by halves (recursive halving and
doubling), which moves 2 n bytes in 2 log₂ P rounds; fastcnn does not have it, and it would give the
same bits, because its halves follow the same tree.

With ``--delay`` no message counts as arrived before so many milliseconds have passed. The delay is
injected into the exchange of this process, and no network is slower. Then the script compares the
step with a prediction: the step without delay, and a delay for each round of messages that waits
for the one before.

With ``--network`` the script compares each step with a prediction from the latency and bandwidth
that it measures: the computation, which is a step whose messages are not sent, and a round of
messages for each that waits for the one before. benchmarks/slow_network.py runs it with a latency.

Without options the script also compares two ways to send gradients: in parts of a mebibyte during
the backward pass, and all of them after it.

With ``--beside`` rank 0 trains without a group on all cores while the others wait, and then all of
them train together on as many cores, in turns. What a call of ``fit`` takes beside its epochs does
not count.

Assumptions: all processes are equally fast, all messages of a round go at once and do not disturb
each other, and latency and bandwidth are those between two processes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, log2
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.hardware import cores
from fastcnn.distributed import Group, groups
from fastcnn.distributed.groups import Pending
from fastcnn.layers import Conv2D, Dense, Flatten, Layer, MaxPool2D
from fastcnn.models.nets import NETS
from fastcnn.models.shard_step import ShardSteps
from fastcnn.optimizers import SGD
from fastcnn.train.shards import Shard, Shards

BATCH, WARM, SECONDS, REPEATS = 128, 0.08, 0.3, 7
SMALL = 1 << 14  # bytes of a message that leaves at once, without a word of the receiver


def narrow() -> list[Layer]:
    """The net ``small`` with fewer filters and units, 20,986 parameters."""
    return [
        Conv2D(8, 3, activation="relu"),
        MaxPool2D(2),
        Conv2D(16, 3, activation="relu"),
        MaxPool2D(2),
        Flatten(),
        Dense(48, activation="relu"),
        Dense(10),
    ]


LAYERS = {"narrow": narrow} | dict(NETS)


class Wire(NamedTuple):
    """What messages take.

    Attributes:
        latency: seconds of a small message.
        start: seconds of a large one before its bytes, because it waits for the receiver's word.
        bandwidth: bytes of a large message in a second.
        adding: bytes that are added in a second.
    """

    latency: float
    start: float
    bandwidth: float
    adding: float

    def message(self, size: float) -> float:
        """Seconds of a message of so many bytes."""
        return (self.latency if size <= SMALL else self.start) + size / self.bandwidth

    def exchange(self, size: int, count: int) -> float:
        """Seconds of a sum of so many bytes over so many processes."""
        rounds = ceil(log2(count)) if count > 1 else 0
        return rounds * (self.message(size) + size / self.adding)

    def by_halves(self, size: int, count: int) -> float:
        """The same by recursive halving and doubling."""
        if count == 1:
            return 0.0
        sizes = [size / 2 ** (i + 1) for i in range(int(log2(count)))]
        return sum(2 * self.message(one) + one / self.adding for one in sizes)


def message_seconds(group: Group, size: int) -> float:
    """Seconds until two processes have exchanged so many bytes; the median of many.

    Two exchanges are timed together, because a process that begins one late finds the message of
    the other there already, and takes so much longer in the next.
    """
    out, back, other = np.zeros(size, np.uint8), np.zeros(size, np.uint8), group.rank ^ 1
    seconds = []
    group.barrier()
    if other < group.size and group.rank < 2:
        for _ in range(60):
            start = perf_counter()
            for _ in range(2):
                group.post([(out, other)], [(back, other)], 1).wait()
            seconds.append((perf_counter() - start) / 2)
    group.barrier()
    return float(group.from_first(np.array([np.median(seconds or [0.0])]))[0])


def measured_wire(group: Group) -> Wire:
    """What messages between two processes take here."""
    latency, size = message_seconds(group, 8), 1 << 18
    large, larger = message_seconds(group, size), message_seconds(group, 16 * size)
    bandwidth = 15 * size / max(larger - large, 1e-9)
    return Wire(latency, max(latency, large - size / bandwidth), bandwidth, adding_speed())


def adding_speed() -> float:
    """Bytes of float32 that are added in a second."""
    a, b = np.zeros(1 << 18, np.float32), np.ones(1 << 18, np.float32)
    best = 1.0
    for _ in range(50):
        start = perf_counter()
        a += b
        best = min(best, perf_counter() - start)
    return a.nbytes / best


class Late(Pending):
    """Messages that count as arrived after a moment at the earliest."""

    def __init__(self, messages: Pending, seconds: float) -> None:
        self._messages, self._end = messages, perf_counter() + seconds

    def done(self) -> bool:
        return perf_counter() >= self._end and self._messages.done()

    def wait(self) -> None:
        self._messages.wait()
        sleep(max(0.0, self._end - perf_counter()))


@contextmanager
def delayed(group: Group, seconds: float) -> Iterator[None]:
    """Within this context messages of a group are late."""
    post = group.post

    def late(*arguments: Any) -> Pending:
        return Late(post(*arguments), seconds)

    group.post = late  # type: ignore[method-assign]
    try:
        yield
    finally:
        group.post = post  # type: ignore[method-assign]


@contextmanager
def unsent(group: Group) -> Iterator[None]:
    """Within this context a group sends no messages, and receives zeros."""

    def post(sends: object, receives: Sequence[tuple[Array, int]], tag: int) -> Pending:
        for array, _ in receives:
            array[...] = 0
        return Pending()

    def nothing(*arguments: object, **more: object) -> None:
        return None

    replaced = {"post": post, "enter": nothing, "settle": nothing}
    for name, function in replaced.items():
        setattr(group, name, function)
    try:
        yield
    finally:
        for name in replaced:
            delattr(group, name)


def steps_of(net: str, group: Group) -> tuple[fastcnn.Model, ShardSteps, Shards]:
    """A net with its steps, and the shards of this process."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (BATCH, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, BATCH)
    model = fastcnn.Sequential(LAYERS[net](), (28, 28, 1), seed=1)
    optimizer = SGD(0.01, momentum=0.9)
    optimizer.begin(model._ownership, model)
    parts = group.shards_of(BATCH)
    first, end = parts[0][1].start, parts[-1][1].stop
    shards = [
        Shard(number, slice(rows.start - first, rows.stop - first), None) for number, rows in parts
    ]
    batch = Shards(shards, x[first:end], y[first:end], None, BATCH)
    return model, ShardSteps(model, group, model._loss(), optimizer), batch


def step_seconds(group: Group, steps: ShardSteps, batch: Shards) -> float:
    """Seconds of a step; the median of turns."""
    for _ in range(3):
        steps.step(batch)
    start = perf_counter()
    steps.step(batch)
    times = int(group.from_first(np.array([SECONDS / (perf_counter() - start)]))[0]) + 1
    warm = max(1, int(times * WARM / SECONDS))
    seconds = []
    for _ in range(REPEATS):
        group.barrier()
        for _ in range(warm):
            steps.step(batch)
        start = perf_counter()
        for _ in range(times):
            steps.step(batch)
        seconds.append((perf_counter() - start) / times)
    return float(np.median(seconds))


def exchange_seconds(group: Group, gradient: Array) -> float:
    """Seconds of the sum of gradients over processes, without the sums within a process."""
    numbers = [number for number, _ in group.shards_of(BATCH)]
    whole = slice(0, gradient.size)
    seconds = []
    for _ in range(60):
        sums = group.sum_of_gradients(BATCH, gradient)
        for number in numbers:
            sums.add(number, gradient, whole)
        group.barrier()
        start = perf_counter()
        sums.leave(whole)
        group.combined([np.zeros(3) for _ in numbers], BATCH)
        sums.finish()
        seconds.append(perf_counter() - start)
    return float(np.median(seconds[10:]))


def rounds_of_step(group: Group, steps: ShardSteps, batch: Shards) -> int:
    """How many times a step waits for messages that follow on each other, at least."""
    count, combined = 0, group.combined

    def counted(*arguments: Any) -> Array:
        nonlocal count
        count += 1
        return combined(*arguments)

    group.combined = counted  # type: ignore[method-assign]
    steps.step(batch)
    group.combined = combined  # type: ignore[method-assign]
    return count * ceil(log2(group.size))  # gradients are under way with the last of them


def compare_hiding(group: Group, net: str) -> None:
    """Print the time of a step that sends gradients during the backward pass, and after it."""
    _, steps, batch = steps_of(net, group)
    early, late, bucket = list[float](), list[float](), groups.BUCKET
    for _ in range(3):
        early.append(step_seconds(group, steps, batch))
        groups.BUCKET = 1 << 40
        late.append(step_seconds(group, steps, batch))
        groups.BUCKET = bucket
    if group.rank == 0:
        print(
            f"{net:8} gradients leave early {1e3 * np.median(early):.2f} ms, after the backward "
            f"pass {1e3 * np.median(late):.2f} ms: {np.median(late) / np.median(early):.3f}",
            flush=True,
        )


def compare_delay(group: Group, net: str, seconds: float) -> None:
    """Print the time of a step with delayed messages, and what the model predicts for it."""
    _, steps, batch = steps_of(net, group)
    plain, rounds = step_seconds(group, steps, batch), rounds_of_step(group, steps, batch)
    with delayed(group, seconds):
        late = step_seconds(group, steps, batch)
    if group.rank == 0:
        print(
            f"{net:8} {1e3 * seconds:g} ms late: step {1e3 * plain:.2f} ms becomes "
            f"{1e3 * late:.2f} ms; predicted {1e3 * (plain + rounds * seconds):.2f} ms for "
            f"{rounds} rounds",
            flush=True,
        )


def compare_network(group: Group, net: str, wire: Wire) -> None:
    """Print the time of a step, and what the model predicts for it from the computation."""
    model, steps, batch = steps_of(net, group)
    size = model._weights.gradient.nbytes
    rounds = rounds_of_step(group, steps, batch)
    step = step_seconds(group, steps, batch)
    with unsent(group):
        computing = step_seconds(group, steps, batch)
    predicted = computing + (rounds - 1) * wire.latency + wire.exchange(size, group.size)
    if group.rank == 0:
        print(
            f"{net:8} computation {1e3 * computing:.2f} ms, step {1e3 * step:.2f} ms, predicted "
            f"{1e3 * predicted:.2f} ms for {rounds} rounds and {size:,} bytes",
            flush=True,
        )


def compare_with_none(group: Group, net: str) -> None:
    """Print the time of a batch of ``fit`` in this group, and that without a group on all cores."""
    rng = np.random.default_rng(0)
    count = 4 * BATCH
    x, y = rng.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, count)
    own, seconds = fastcnn.get_num_threads(), dict[bool, list[float]]({False: [], True: []})
    models = {
        grouped: fastcnn.Sequential(LAYERS[net](), (28, 28, 1), seed=1) for grouped in (False, True)
    }

    def epochs(grouped: bool, times: int) -> float:
        """Seconds of so many epochs."""
        start = perf_counter()
        models[grouped].fit(
            x, y, epochs=times, batch_size=BATCH, optimizer=SGD(0.01, momentum=0.9), verbose=0,
            seed=0, group=group if grouped else None,
        )  # fmt: skip
        return perf_counter() - start

    times = 0
    for _ in range(2 * REPEATS + 2):
        for grouped in seconds:
            group.barrier()
            if not grouped:
                fastcnn.set_num_threads(cores())
            if grouped or group.rank == 0:
                if not times:
                    epochs(grouped, 2)
                if times:
                    start = epochs(grouped, 1)
                    rest = epochs(grouped, times + 1) - start
                    seconds[grouped].append(rest / times / (count // BATCH))
            fastcnn.set_num_threads(own)
        if not times:
            mine = SECONDS / max(1e-3, (epochs(True, 5) - epochs(True, 1)) / 4)
            times = int(group.from_first(np.array([mine]))[0]) + 1
    if group.rank == 0:
        none, together = (1e3 * float(np.median(seconds[grouped])) for grouped in (False, True))
        print(
            f"{net:8} one process of {cores()} threads without a group {none:.2f} ms, {group.size} "
            f"of {own} in a group {together:.2f} ms: {none / together:.2f} times the speed",
            flush=True,
        )


def report(group: Group, wire: Wire, given: bool) -> None:
    """Print measurements and predictions on rank 0."""

    def say(line: str) -> None:
        if group.rank == 0:
            print(line, flush=True)

    how = "given" if given else "measured"
    say(
        f"{group.size} processes of {fastcnn.get_num_threads()} threads, batch {BATCH}; "
        f"{how}: latency {1e6 * wire.latency:.1f} µs, of large messages {1e6 * wire.start:.1f} µs, "
        f"{wire.bandwidth / 1e9:.1f} GB/s; adding {wire.adding / 1e9:.1f} GB/s"
    )
    say("net      parameters  step ms  exchange ms  share  model ms")
    rows = []
    for net in ("article", "narrow", "small", "lenet5", "wide", "resnet8"):
        model, steps, batch = steps_of(net, group)
        gradient = model._weights.gradient
        step = step_seconds(group, steps, batch)
        exchange = exchange_seconds(group, np.zeros_like(gradient))
        predicted = wire.exchange(gradient.nbytes, group.size)
        count = sum(w.size for layer in model.layers for w in layer.parameters.values())
        say(
            f"{net:8} {count:10,} {1e3 * step:8.2f} {1e3 * exchange:12.3f} "
            f"{exchange / step:6.1%} {1e3 * predicted:9.3f}"
        )
        rows.append((net, gradient.nbytes, step - exchange))
    say(
        "\nprediction      weak: share of exchange, efficiency    strong: speed-up   weak by halves"
    )
    for net, size, computing in rows:
        for count in (16, 256, 4096):
            exchange = wire.exchange(size, count)
            weak = computing / (computing + exchange)
            used = min(count, BATCH)
            alone = computing * group.size
            strong = alone / (alone / used + wire.exchange(size, used))
            halves = computing / (computing + wire.by_halves(size, count))
            say(
                f"{net:8} {count:6,}{1 - weak:28.1%}{weak:12.1%}{strong:15.1f} of {used}"
                f"{halves:15.1%}"
            )


def main() -> None:
    """Measure and predict."""
    parser = argparse.ArgumentParser(description="The exchange of gradients.")
    parser.add_argument("--latency", type=float, help="of a network, in microseconds")
    parser.add_argument("--bandwidth", type=float, help="of a network, in GB/s")
    parser.add_argument("--delay", type=float, action="append", help="in milliseconds")
    parser.add_argument("--network", action="store_true", help="compare steps with predictions")
    parser.add_argument("--net", action="append", help="of --beside and --network; default: some")
    parser.add_argument("--beside", action="store_true", help="compare with no group")
    options = parser.parse_args()
    group = fastcnn.distributed.world()
    if options.beside:
        for net in options.net or ("article", "narrow", "small", "wide", "resnet8"):
            compare_with_none(group, net)
        return
    if group.size < 2:
        raise SystemExit("run it by mpiexec -n 2 python benchmarks/distributed.py")
    wire = measured_wire(group)
    if options.network:
        if group.rank == 0:
            print(
                f"latency {1e3 * wire.latency:.2f} ms, of large messages {1e3 * wire.start:.2f} "
                f"ms; {wire.bandwidth / 1e6:.0f} MB/s",
                flush=True,
            )
        for net in options.net or ("small", "wide", "resnet8"):
            compare_network(group, net, wire)
        return
    if options.delay:
        for delay in options.delay:
            for net in ("small", "resnet8"):
                compare_delay(group, net, 1e-3 * delay)
        return
    for net in ("wide", "small"):
        compare_hiding(group, net)
    report(group, wire, given=False)
    if options.latency is not None and options.bandwidth is not None:
        latency = options.latency * 1e-6
        report(group, Wire(latency, 3 * latency, options.bandwidth * 1e9, wire.adding), given=True)


if __name__ == "__main__":
    main()
