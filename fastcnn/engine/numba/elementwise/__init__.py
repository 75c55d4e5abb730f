"""Kernels on single numbers, rows or channels: activations, losses, normalisation, optimizers."""
