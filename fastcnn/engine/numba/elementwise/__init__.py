"""Kernels on single numbers, rows or channels: activations, losses, normalisation, merged arrays,
padding, optimizers."""
