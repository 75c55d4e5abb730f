"""Pooling and its gradients.

Its files:

    operations.py  the operations that the engine exports
    chooser.py     which kernel serves a pooling, with which tile, and why
    forward.py     maximum and minimum
    gradient.py    their gradients
    average.py     average pooling and its gradient
    windows.py     which pixels and which windows meet
"""
