"""Layers, losses, optimizers and schedules: they hold parameters, and call operations."""
