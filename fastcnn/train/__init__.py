"""The training loop, callbacks, model files, and how much each sample counts."""
