"""Sums over computed offsets: the kernel of convolutions and dense layers, and its copies."""
