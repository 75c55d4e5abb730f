"""Jobs: a kernel with its arguments, whose parts threads take from a board without coming back.

Where whoever calls has workers, it writes a part of its range to the board for each, does its own,
then what no worker has begun, and waits for the others. All of that, and what workers do until they
sleep, is compiled code without the interpreter's lock: handed over by Python, a part began 10 to
25 µs after the call; so it takes 1 to 2 (two cores of a Zen 3 processor).

A worker knows nothing of the kernel but the address of its task, and of its arguments, which the
caller keeps (:func:`fastcnn.kernels.calls.job`). Until all parts are done the caller does not
return, so they stay there.

**The board** is an array of int64. Its first words hold the job's number, task and arguments; each
worker has a place of two cache lines: the number of a job whose part is open, its first and last
item; and the number of the last job that is done. Who takes a part, worker or caller, turns its
number's sign: one alone can.
"""

from __future__ import annotations

from typing import Any

from fastcnn.kernels.calls import run_part
from fastcnn.kernels.simd import load_acquire, pause, store_release, take, yield_core

CACHE_LINE = 8  # words of 64 bits
PLACE = 2 * CACHE_LINE
"""Words of the board for each worker; the first are the job's own."""
NUMBER, TASK, ARGUMENTS = range(3)  # the job's words
OPEN, FIRST, LAST, DONE = 0, 1, 2, CACHE_LINE  # those of a place
# How often a caller looks before it lets other programs have its core.
_GLANCES = 500


def share(board: Any, parts: int, start: int, stop: int, task: Any, arguments: Any) -> None:
    """Run a task over ``range(start, stop)``, in ``parts`` where there is a board.

    What a part is follows from the range and their number alone.
    """
    if board.size == 0:
        run_part(task, arguments, start, stop)
        return
    count, number = stop - start, board[NUMBER] + 1
    board[NUMBER], board[TASK], board[ARGUMENTS] = number, task, arguments
    for part in range(1, parts):
        place = part * PLACE
        board[place + FIRST] = start + count * part // parts
        board[place + LAST] = start + count * (part + 1) // parts
        store_release(board, place + OPEN, number)
    run_part(task, arguments, start, start + count // parts)
    for part in range(1, parts):
        place = part * PLACE
        if take(board, place + OPEN, number):  # where others have the cores, none may have come
            run_part(task, arguments, board[place + FIRST], board[place + LAST])
            store_release(board, place + DONE, number)
    for part in range(1, parts):
        looks = 0
        while load_acquire(board, part * PLACE + DONE) != number:
            looks += 1
            if looks % _GLANCES == 0:
                yield_core()
            pause()


def serve(board: Any, place: int, looks: int) -> None:
    """What a worker does at its place of the board, until it has looked in vain so often."""
    left = looks
    while left:
        number = load_acquire(board, place + OPEN)
        if number > 0 and take(board, place + OPEN, number):
            run_part(board[TASK], board[ARGUMENTS], board[place + FIRST], board[place + LAST])
            store_release(board, place + DONE, number)
            left = looks
        else:
            pause()
            left -= 1
