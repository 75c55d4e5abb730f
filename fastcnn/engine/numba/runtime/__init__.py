"""How kernels are compiled, kept on the disk, shared by threads, and put into programs.

Its files:

    types.py             names for the types in signatures
    jit.py               the decorators of kernels
    inlining.py          every compile flag; what kernels call is compiled into them
    pipeline.py          the passes of Numba and LLVM that kernels go through
    arithmetic.py        the types of a + b, resolved once
    code_key.py          a key of everything that a kernel is made of
    kernel_cache.py      compiled kernels on the disk
    compile_turn.py      one process compiles a kernel; other processes wait and read it
    compile_ahead.py     lists of kernels that are compiled before they are needed
    compile_helper.py    the main program of a second process that compiles
    compile_notice.py    a line on the standard error when compiling takes long
    rehearsal.py         computations that list their kernels instead of running them
    threads.py           parallel_for, and the threads that it uses
    jobs.py              how threads take the tasks of a kernel, in compiled code
    instruction_sets.py  the vector registers for which kernels are chosen
    decisions.py         ordered lists of kernels; the first kernel that serves is taken
    arrays.py            the arguments of kernels
    bound.py             calls that remember their kernel, and make their results
    memory.py            memory for results and scratch, used again
    intrinsics.py        functions written as LLVM, each with a NumPy form for when JIT is off
    atomics.py           words of memory that threads change in one step
    finite.py            whether all numbers of an array are finite
    floats.py            arithmetic on single numbers, from which loops over vectors are made
    runs.py              runs of neighbouring numbers, copied and zeroed
    calls.py             calls of compiled kernels by their address
    program.py           lists of such calls, which run for each slice of a batch
    turns.py             lists of such calls; all threads share each call
"""
