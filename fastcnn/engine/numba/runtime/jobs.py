"""Jobs: a kernel with its arguments, whose pieces threads take from a board without coming back.

Whoever calls cuts the range of a job into pieces, some for each thread, and writes to the board how
many each has. It does its own and then what is left of the others', as all do: threads that are
slower, or late, or kept from a core by other programs, leave more to the rest. All of that, and
what workers do until they sleep, is compiled code without the interpreter's lock: handed over by
Python, work began 10 to 25 µs after the call; an awake worker begins 0.1 µs after its place was
written to (two cores of a Zen 3 processor).

A worker knows nothing of the kernel but the address of its task, and of its arguments, which the
caller keeps (:func:`fastcnn.engine.numba.runtime.calls.launch`). Until all pieces are done the
caller does not return, so they stay there. :func:`share` is compiled once; its address lies on the
board, where kernels read it.

**The board** is an array of int64 with a place of two cache lines for each thread, the caller's
first. Its first line holds the job; a worker's, what it has done. The second says how many pieces
of which job are left. Both are words with a job's number and a count, so that a piece is taken by
changing one word: what a late worker finds is of the job whose number it sees, or nothing.

**One caller at a time** has the board. Its word ``BUSY`` is taken and given back by compiled code
alone, where no signal handler and no exception of Python's can come between. A caller that finds
it taken does all of its work alone.

**The wait ends.** A caller waits only for pieces that a thread has taken, and a piece is taken,
done and counted in compiled code, where no thread can be stopped. The count is right for any number
of threads at one place, because each adds to it in one step.
"""

from __future__ import annotations

from typing import Any

from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime.atomics import (
    load_acquire,
    pause,
    store_release,
    swap,
    yield_core,
)
from fastcnn.engine.numba.runtime.calls import SHARE, run_part
from fastcnn.engine.numba.runtime.inlining import device

LINE_WORDS = CACHE_LINE // 8  # words of 64 bits in a cache line
PLACE = 2 * LINE_WORDS
"""Words of the board for each thread."""
NUMBER, TASK, ARGUMENTS, START, STOP, PIECES, THREADS = range(7)  # the job's words
LEFT, DONE = LINE_WORDS, LINE_WORDS - 1  # those of a place
BUSY, WANTED = SHARE + 1, SHARE + 2
"""Words of the whole board: whether a caller has it; how many threads the next job is for."""
COUNT = 16
"""Bits of a count; the others of a word are the job's number."""
_COUNTED = (1 << COUNT) - 1
# How often a caller looks before it lets other programs have its core.
_GLANCES = 500


def share(start: int, stop: int, board: Any, pieces: int, task: int, arguments: int) -> None:
    """Run a task over ``range(start, stop)``, cut into ``pieces``; on return all are done.

    The board says how many threads are wanted. What a piece is follows from the range and their
    number alone. Callers write that number without having the board, so it may be another caller's:
    then the pieces are others, and no result is.
    """
    if not swap(board, BUSY, 0, 1):
        run_part(task, arguments, start, stop)
        return
    number, threads = board[NUMBER] + 1, load_acquire(board, WANTED)
    if pieces > threads:
        pieces -= pieces % threads  # as many for each
    board[NUMBER], board[TASK], board[ARGUMENTS] = number, task, arguments
    board[START], board[STOP], board[PIECES], board[THREADS] = start, stop, pieces, threads
    for thread in range(threads):
        count = pieces * (thread + 1) // threads - pieces * thread // threads
        store_release(board, thread * PLACE + LEFT, (number << COUNT) + count)
    _work_off(board, 0, number)
    looks, done = 0, 0
    while done < pieces:
        done = 0
        for thread in range(threads):
            finished = load_acquire(board, thread * PLACE + DONE) - (number << COUNT)
            if finished > 0:  # else of an earlier job
                done += finished
        looks += 1
        if looks % _GLANCES == 0:
            yield_core()
        pause()
    store_release(board, BUSY, 0)


@device
def _work_off(board: Any, own: int, number: int) -> None:
    """Do a job's pieces of the thread with the place ``own``, then those that others have left.

    Of no other job: its caller looks for what is done only where it gave out pieces.
    """
    threads = load_acquire(board, THREADS)
    for i in range(threads):
        thread = (own // PLACE + i) % threads
        place = thread * PLACE + LEFT
        word = load_acquire(board, place)
        while word & _COUNTED and word >> COUNT == number:
            if swap(board, place, word, word - 1):
                # Until this piece is done the job's words stay as they are.
                start, count, pieces = board[START], board[STOP] - board[START], board[PIECES]
                piece = pieces * (thread + 1) // board[THREADS] - (word & _COUNTED)
                first, last = count * piece // pieces, count * (piece + 1) // pieces
                run_part(board[TASK], board[ARGUMENTS], start + first, start + last)
                _count(board, own + DONE, number)
            word = load_acquire(board, place)


@device
def _count(board: Any, place: int, number: int) -> None:
    """One more piece of a job is done."""
    done = load_acquire(board, place)
    # A count of an earlier job begins anew.
    while not swap(board, place, done, max(done, number << COUNT) + 1):
        done = load_acquire(board, place)


def serve(board: Any, own: int, looks: int) -> None:
    """What the worker with the place ``own`` does, until it has looked in vain so often."""
    left, last = looks, 0
    while left:
        number = load_acquire(board, own + LEFT) >> COUNT
        if number == last:
            pause()
            left -= 1
        else:
            _work_off(board, own, number)
            left, last = looks, number
