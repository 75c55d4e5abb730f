"""Data sets, pictures and drawings, augmentation, and the bundled MNIST."""
