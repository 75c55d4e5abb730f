"""Scripts are run, not collected: some need what the test extra does not install."""

collect_ignore = [
    "article_layers.py",
    "article_speedups.py",
    "peak.py",
    "planted_slowdowns.py",
    "training_versus_torch.py",
    "versus_torch.py",
]
