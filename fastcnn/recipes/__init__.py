"""Programs on MNIST with settings that are known to work: the demo, and training by name."""
