"""Classes of many images by several processes, each of which predicts its own part.

mpiexec -n 2 python examples/predict_with_mpi.py
"""

# %% All processes that mpiexec has started; without MPI this one alone.
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fastcnn

try:
    group = fastcnn.distributed.world()
except ImportError:
    group = fastcnn.distributed.alone()

# %% A net that all processes train together, to the same weights.
(x, y), (x_test, y_test) = fastcnn.load_mnist()
layers = fastcnn.nets.NETS["article"]()
model = fastcnn.Sequential(layers, input_shape=(28, 28, 1), seed=0)
model.fit(x[:3000], y[:3000], epochs=1, optimizer="adam", seed=0, verbose=0, group=group)

# %% Each process maps the file into memory, and reads its own part alone.
with TemporaryDirectory() as folder:
    path = Path(folder) / "images.npy"  # a real program has one file that all processes can read
    np.save(path, x_test[:2000])
    images = np.load(path, mmap_mode="r")
    own = group.share_of(len(images))
    classes = model.predict_classes(images[own.start : own.stop])
    del images

# %% Rank 0 joins the parts.
parts = [np.frombuffer(part, np.int64) for part in group.gathered(classes.tobytes())]
if group.rank == 0:
    right = np.mean(np.concatenate(parts) == y_test[:2000])
    print(f"2000 images, {group.size} processes: {right:.1%} right")
