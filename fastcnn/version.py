"""The version, in one place: packaging, the cache of compiled kernels and reports read it."""

__version__ = "0.1.0"
