"""Register tiles as LLVM values."""
