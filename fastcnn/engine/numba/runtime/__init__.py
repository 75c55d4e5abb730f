"""How kernels are compiled, kept on the disk, shared by threads, and put into programs."""
