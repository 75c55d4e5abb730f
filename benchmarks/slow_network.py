"""Trainings of two processes over a network with a latency, on one machine; as root, on Linux.

    python benchmarks/slow_network.py --latency 1 --latency 10        in milliseconds

The script makes two network namespaces and a wire between them. A process of this script is the
wire: it holds each packet for so long. ``mpiexec`` starts a process in each namespace, and both can
reach each other by TCP over this wire alone. Each of them runs ``benchmarks/distributed.py
--network``, which compares a step with the prediction of the model. At the end the namespaces are
removed.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Process
from pathlib import Path
from time import perf_counter

NAMES, ADDRESSES = ("fastcnn-a", "fastcnn-b"), ("10.77.0.1", "10.77.0.2")
_DEVICE, _MTU, _PACKET = "wire", 9000, 1 << 16
_TUNSETIFF, _TAP, _NO_HEADER = 0x400454CA, 0x0002, 0x1000
_SCRIPT = Path(__file__).with_name("distributed.py")


def system(*command: str) -> None:
    """Run a command, which must succeed."""
    subprocess.run(command, check=True)


@contextmanager
def wire(seconds: float) -> Iterator[None]:
    """Within this context there are two namespaces, whose packets need so long to each other."""
    import fcntl

    ends = list[int]()
    for i, name in enumerate(NAMES):
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)  # of a killed run
        system("ip", "netns", "add", name)
        end, device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK), f"wire{i}"
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", device.encode(), _TAP | _NO_HEADER))
        system("ip", "link", "set", device, "netns", name)
        inside = "ip", "-n", name
        system(*inside, "link", "set", device, "name", _DEVICE)
        system(*inside, "addr", "add", f"{ADDRESSES[i]}/24", "dev", _DEVICE)
        system(*inside, "link", "set", "lo", "up")
        system(*inside, "link", "set", _DEVICE, "mtu", str(_MTU), "txqueuelen", "5000", "up")
        ends.append(end)
    process = Process(target=hold, args=(ends, seconds), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()
        for end, name in zip(ends, NAMES, strict=True):
            os.close(end)
            system("ip", "netns", "del", name)


def hold(ends: list[int], seconds: float) -> None:
    """Take packets from each end to the other, late."""
    queues = [deque[tuple[float, bytes]](), deque[tuple[float, bytes]]()]
    while True:
        due = min((queue[0][0] for queue in queues if queue), default=perf_counter() + 1)
        for end in select.select(ends, [], [], max(0.0, due - perf_counter()))[0]:
            with suppress(BlockingIOError):
                while True:
                    packet = os.read(end, _PACKET)
                    queues[ends.index(end)].append((perf_counter() + seconds, packet))
        for queue, other in zip(queues, reversed(ends), strict=True):
            while queue and queue[0][0] <= perf_counter():
                with suppress(BlockingIOError):
                    os.write(other, queue.popleft()[1])


def train(folder: Path, nets: list[str]) -> None:
    """Run the benchmark with a process in each namespace."""
    mpiexec = shutil.which(
        "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if mpiexec is None:
        sys.exit("mpiexec is not installed (extra mpi)")
    launcher = folder / "launch"  # called as ssh would be, with options, the host and a command
    launcher.write_text(
        "#!/bin/sh\n"
        'while [ "${1#-}" != "$1" ]; do shift; done\n'
        f'[ "$1" = {ADDRESSES[0]} ] && name={NAMES[0]} || name={NAMES[1]}\n'
        'shift; exec ip netns exec $name sh -c "$*"\n'
    )
    launcher.chmod(0o755)
    tcp = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": _DEVICE, "FI_PROVIDER": "tcp"}
    tcp |= {"MPIR_CVAR_NOLOCAL": "1", "UCX_LOG_LEVEL": "error"}  # no shared memory
    environment = os.environ | tcp | {"FI_TCP_IFACE": _DEVICE}
    hosts = ",".join(f"{address}:1" for address in ADDRESSES)
    options = ["-launcher", "ssh", "-launcher-exec", str(launcher), "-iface", _DEVICE]
    command = ["ip", "netns", "exec", NAMES[0], mpiexec, *options, "-hosts", hosts, "-n", "2"]
    more = [word for net in nets for word in ("--net", net)]
    command += [sys.executable, str(_SCRIPT), "--network", *more]
    subprocess.run(command, check=True, env=environment)


def main() -> None:
    """Train with each latency."""
    parser = argparse.ArgumentParser(description="Trainings over a slow network.")
    parser.add_argument("--latency", type=float, action="append", help="in milliseconds")
    parser.add_argument("--net", action="append", help="default: small, wide and resnet8")
    options = parser.parse_args()
    if os.getuid():
        sys.exit("run it as root, because it makes network namespaces")
    for latency in options.latency or [1.0, 10.0]:
        with tempfile.TemporaryDirectory() as folder, wire(1e-3 * latency):
            print(f"packets {latency:g} ms late", flush=True)
            train(Path(folder), options.net or ["small", "wide", "resnet8"])


if __name__ == "__main__":
    main()
