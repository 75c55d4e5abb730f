"""How kernels are compiled, kept on the disk, shared by threads, and put into programs.

Its files:

    types.py             names for the types in signatures
    jit.py               the decorators of kernels
    inlining.py          every compile flag; what kernels call is compiled into them
    pipeline.py          the passes of Numba and LLVM that kernels go through
    arithmetic.py        the types of a + b, resolved once
    code_key.py          what a kernel is made of, as a key
    kernel_cache.py      compiled kernels on the disk
    compile_turn.py      one process compiles a kernel, and others wait and read it
    compile_ahead.py     lists of kernels compiled before they are needed
    compile_helper.py    the second process that does so
    compile_notice.py    the line that says so when compiling lasts
    rehearsal.py         a computation gone through to list its kernels; none runs
    threads.py           parallel_for: the only place that knows threads
    jobs.py              what a kernel and its threads share, without Python
    instruction_sets.py  which vector registers there are, to choose kernels by
    arrays.py            what kernels are called with
    memory.py            memory for results and scratch, used again
    intrinsics.py        functions written as LLVM, each with a NumPy form for when JIT is off
    atomics.py           words of memory that threads change in one step
    runs.py              runs of neighbouring numbers, copied and zeroed
    calls.py             calls of compiled kernels by their address
    program.py           lists of such calls, run for each slice of a batch
"""
