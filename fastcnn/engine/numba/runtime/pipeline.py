"""How kernels go through Numba's and LLVM's compilers: their symbols, and only the needed passes.

Numba's own pipeline serves any Python function. Kernels have no closures, ``with`` blocks, array
expressions or calls of overloads that must be inlined, so this pipeline leaves out the passes for
these. LLVM's passes on single functions run as in Numba, because loops come out slower without them
(docs/measurements.md, "LLVM optimises each function before linking"). A kernel's LLVM module is
optimised as a whole once, when everything that the kernel calls is linked in. Each symbol holds the
key of the code (:mod:`fastcnn.engine.numba.runtime.code_key`).

The module runs when a kernel is compiled, and not when it is read from the cache.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import count
from typing import Any

from llvmlite import binding
from llvmlite.binding.ffi import lib
from numba.core import compiler_machinery, typed_passes, untyped_passes
from numba.core.codegen import CPUCodegen, JITCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult

from fastcnn.core.undisturbed import go_on
from fastcnn.engine.numba.runtime import compile_notice
from fastcnn.engine.numba.runtime.arithmetic import KernelLowering, TypingContext
from fastcnn.engine.numba.runtime.code_key import code_key
from fastcnn.engine.numba.runtime.compile_turn import turn

_PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.RewriteSemanticConstants,
    untyped_passes.DeadBranchPrune,  # branches on constants; the dead ones may not have types
    untyped_passes.GenericRewrites,  # constant indices of tuples and records
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.IRLegalization,
    KernelLowering,
    typed_passes.NoPythonBackend,
)

_compilations: dict[str, count[int]] = {}
llvm_lock = lib._lock._lock
"""The lock that a thread has while it is in LLVM."""


class KernelLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The machine code of one kernel and of everything that it calls."""

    def _optimize_final_module(self) -> None:
        """Optimise the module; hide all symbols but those with this kernel's key."""
        go_on()
        module = self._final_module
        for value in (*module.functions, *module.global_variables):
            if not value.is_declaration and self.name not in value.name:
                value.linkage = binding.Linkage.internal
        passes = self._codegen._module_pass_manager()
        if isinstance(passes, tuple):  # Numba 0.62 and newer: with the builder that made them
            manager, builder = passes
            manager.run(module, builder)
        else:
            passes.run(module)

    def symbols(self) -> list[str]:
        """The names that this code defines for others to find."""
        values = (*self._final_module.functions, *self._final_module.global_variables)
        hidden = binding.Linkage.internal, binding.Linkage.private
        return [v.name for v in values if not v.is_declaration and v.linkage not in hidden]


class _NoMachineCode:
    @staticmethod
    def set_env(name: str, environment: object) -> None:
        """Do nothing: code that never runs by itself has no environment."""


class InlinedLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The LLVM code of a function that kernels call, not optimised, to be linked into kernels."""

    codegen = _NoMachineCode

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _Compiler(CompilerBase):  # type: ignore[misc]
    """Numba's compiler with the passes that kernels need."""

    def define_pipelines(self) -> list[compiler_machinery.PassManager]:
        go_on()
        state = self.state
        identity, target = state.func_id, state.targetctx.codegen()
        key = code_key(identity.func, state.args, state.flags.fastmath.flags, target)
        # Each number comes once, also if a signal handler compiles in between.
        number = next(_compilations.setdefault(key, count(1)))
        if number > 1:  # another dispatcher of the same function
            key = f"{key}_{number}"
        identity.unique_id, identity.unique_name = key, f"{identity.func_qualname}${key}"
        state.library, state.type_annotation = self.new_library(target, key), ""
        state.typingctx = TypingContext(state.typingctx)
        passes = compiler_machinery.PassManager("kernel")
        for one in _PASSES:
            passes.add_pass(one, one.__name__)
        passes.finalize()
        return [passes]

    def new_library(self, target: CPUCodegen, key: str) -> JITCodeLibrary:
        """An empty library for the code."""
        raise NotImplementedError


class KernelCompiler(_Compiler):
    """Compiles a kernel to machine code that can be kept."""

    def compile_extra(self, function: Callable[..., Any]) -> CompileResult:
        """Compile without collections of garbage, which would take time and free nothing.

        After an error or an interrupt, another process that waits for the kernel compiles it.
        (docs/measurements.md, "No collection of garbage while compiling".)
        """
        collects = gc.isenabled()
        try:
            gc.disable()
            return super().compile_extra(function)
        except BaseException:
            turn.give()
            compile_notice.notice.end()
            raise
        finally:
            if collects:
                gc.enable()

    def new_library(self, target: CPUCodegen, key: str) -> KernelLibrary:
        library = KernelLibrary(target, key)
        library.enable_object_caching()
        return library


class InlinedCompiler(_Compiler):
    """Compiles a function that kernels call."""

    def new_library(self, target: CPUCodegen, key: str) -> InlinedLibrary:
        return InlinedLibrary(target, key)
