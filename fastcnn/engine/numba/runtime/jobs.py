"""Jobs: a kernel with its arguments, whose tasks threads take from a board in compiled code.

A caller of :func:`fastcnn.engine.numba.runtime.threads.parallel_for` cuts the range of a job into
tasks and writes to the board how many tasks each thread has. Every thread, caller or worker, does
its own tasks first, and then tasks that other threads have not begun: slow or late threads leave
more tasks to the rest. All of it is compiled code without the interpreter's lock, because threads
would wait for the lock longer than small jobs last (docs/measurements.md, "Tasks are handed over by
compiled code").

A worker reads two addresses from the board: a task entry and its frame, or the step entry of a
program's step and its operands (:mod:`fastcnn.engine.numba.runtime.calls`). Frame and operands lie
on the caller's stack, and stay there because the caller returns after all tasks are done.
:func:`offer` is compiled once. Kernels call it by its address, which lies on the board.

**The board** is an array of int64 words. Each thread has a slot of two cache lines; the caller has
the first slot.

- First line of the caller's slot: the job (``NUMBER`` to ``THREADS``).
- Last word of each slot's first line: ``DONE``, the tasks that the thread has done.
- First word of each slot's second line: ``LEFT``, the tasks of the thread that are left.
- The words after it in the caller's slot belong to the whole board: ``OFFER``, the address of
  :func:`offer`; ``BUSY``; ``WANTED``; ``AWAKE``.

``DONE`` and ``LEFT`` hold the job's number and a count, so a thread takes a task by changing one
word. A late worker reads either tasks of the job whose number it read, or none.

**One caller at a time** has the board. Compiled code alone sets and clears its word ``BUSY``, so no
signal handler and no exception of Python's comes in between. A caller that finds it set does all of
its work alone.

**The wait ends**, because a caller waits only for tasks that a thread has taken, and a thread
takes, does and counts a task in compiled code, where nothing stops it. Several threads can
add to one count, because each adds to it in one step.
"""

from __future__ import annotations

from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime.atomics import (
    load_acquire,
    pause,
    store_release,
    swap,
    yield_core,
)
from fastcnn.engine.numba.runtime.calls import OFFER, run_entry
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.types import Address, Words

LINE_WORDS = CACHE_LINE // 8  # words of 64 bits in a cache line
SLOT = 2 * LINE_WORDS
"""Words of the board for each thread."""
NUMBER, ENTRY, FRAME, START, STOP, TASKS, THREADS = range(7)
"""Words of the job: its number, two addresses, its range, and how many tasks and threads it has."""
LEFT, DONE = LINE_WORDS, LINE_WORDS - 1
"""Words of a slot: how many tasks of which job are left, and how many the thread has done."""
BUSY, WANTED, AWAKE = OFFER + 1, OFFER + 2, OFFER + 3
"""Words of the whole board: whether a caller has it; how many threads the next job is for; how many
programs run whose steps are jobs, between which no worker sleeps."""
COUNT = 16
"""Bits of a count; the other bits of its word are the job's number."""
_COUNT_MASK = (1 << COUNT) - 1
_GLANCES = 500  # looks of a waiting thread before it yields its core


def offer(start: int, stop: int, board: Words, tasks: int, entry: Address, frame: Address) -> None:
    """Run a kernel over ``range(start, stop)``, cut into ``tasks``; all are done on return.

    The bounds of a task follow from the range and the number of tasks alone. ``WANTED`` says how
    many threads take part. Callers write it before they have the board, so it may be another
    caller's number; then the number of tasks differs, and the results do not.
    """
    if not swap(board, BUSY, 0, 1):
        run_entry(entry, frame, start, stop)
        return
    number, threads = board[NUMBER] + 1, load_acquire(board, WANTED)
    if tasks > threads:
        tasks -= tasks % threads  # the same number for each thread
    board[NUMBER], board[ENTRY], board[FRAME] = number, entry, frame
    board[START], board[STOP], board[TASKS], board[THREADS] = start, stop, tasks, threads
    for thread in range(threads):
        count = tasks * (thread + 1) // threads - tasks * thread // threads
        store_release(board, thread * SLOT + LEFT, (number << COUNT) + count)
    _do_tasks(board, 0, number)
    looks, done = 0, 0
    while done < tasks:
        done = 0
        for thread in range(threads):
            count = load_acquire(board, thread * SLOT + DONE) - (number << COUNT)
            if count > 0:  # otherwise the count is of an earlier job
                done += count
        looks += 1
        if looks % _GLANCES == 0:
            yield_core()
        pause()
    store_release(board, BUSY, 0)


@device
def _do_tasks(board: Words, slot: int, number: int) -> None:
    """Do the tasks of job ``number`` on the thread whose slot begins at word ``slot``.

    The thread does its own tasks first, then those that other threads have not begun. It takes no
    task of another job, because the job's caller counts in the slots of the job's threads alone.
    """
    # Perhaps this is the number of another job. It only says where to look: a task that is taken is
    # of job ``number``.
    threads = load_acquire(board, THREADS)
    for i in range(threads):
        thread = (slot // SLOT + i) % threads
        index = thread * SLOT + LEFT
        word = load_acquire(board, index)
        while word & _COUNT_MASK and word >> COUNT == number:
            if swap(board, index, word, word - 1):
                # The words of the job do not change until this task is done. The tasks of
                # ``thread`` end before the bound below; the word counts those that are left.
                start, count, tasks = board[START], board[STOP] - board[START], board[TASKS]
                task = tasks * (thread + 1) // board[THREADS] - (word & _COUNT_MASK)
                first, end = count * task // tasks, count * (task + 1) // tasks
                run_entry(board[ENTRY], board[FRAME], start + first, start + end)
                _count(board, slot + DONE, number)
            word = load_acquire(board, index)


@device
def _count(board: Words, index: int, number: int) -> None:
    """Add a task of job ``number`` to the count at ``board[index]``, in one step."""
    done = load_acquire(board, index)
    # The count of an earlier job is replaced by one that begins at 0.
    while not swap(board, index, done, max(done, number << COUNT) + 1):
        done = load_acquire(board, index)


@device
def begin_program(board: Words) -> None:
    """Keep the workers awake until :func:`end_program`."""
    _add(board, AWAKE, 1)


@device
def end_program(board: Words) -> None:
    """Let the workers sleep when they find no job."""
    _add(board, AWAKE, -1)


@device
def _add(board: Words, index: int, number: int) -> None:
    """Add a number to ``board[index]``, in one step."""
    old = load_acquire(board, index)
    while not swap(board, index, old, old + number):
        old = load_acquire(board, index)


def serve(board: Words, slot: int, looks: int) -> None:
    """Do tasks on the worker whose slot begins at word ``slot``.

    The worker looks at its slot again and again. It returns after ``looks`` looks without a new
    job. While a program runs, it does not return, but yields the core after some looks.
    """
    remaining_looks, last_number = looks, 0
    while remaining_looks:
        number = load_acquire(board, slot + LEFT) >> COUNT
        if number == last_number:
            pause()
            remaining_looks -= 1
            if remaining_looks == 0 and load_acquire(board, AWAKE) > 0:
                yield_core()
                remaining_looks = _GLANCES
        else:
            _do_tasks(board, slot, number)
            remaining_looks, last_number = looks, number
