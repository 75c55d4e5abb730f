"""Programs on MNIST with tested settings: the demo, and the training of nets by name."""
