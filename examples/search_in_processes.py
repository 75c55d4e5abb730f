"""A grid search whose trainings run in several processes: of joblib, of Dask, or of Ray.

python examples/search_in_processes.py           joblib's own workers
python examples/search_in_processes.py dask      pip install "dask[distributed]"
python examples/search_in_processes.py ray       pip install ray
"""

# %% Some digits, and the settings to try.
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV

import fastcnn
from fastcnn import CNNClassifier

workers = min(2, joblib.cpu_count())
threads = max(1, joblib.cpu_count() // workers)  # of each worker


# %% The workers, each with as many threads as cores fall to it.
@contextmanager
def joblib_workers() -> Iterator[None]:
    """joblib's own workers get their number of threads from joblib."""
    with joblib.parallel_config("loky", inner_max_num_threads=threads):
        yield


@contextmanager
def dask_workers() -> Iterator[None]:
    """Dask gives a worker one thread, unless told otherwise; ``Client(address)`` of a cluster."""
    from dask import config
    from dask.distributed import Client, LocalCluster

    variables = {"distributed.nanny.pre-spawn-environ.FASTCNN_NUM_THREADS": threads}
    with (
        config.set(variables),
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        yield


@contextmanager
def ray_workers() -> Iterator[None]:
    """Ray gives a worker one thread, unless told otherwise; ``ray.init("auto")`` of a cluster."""
    import ray
    from ray.util.joblib import register_ray

    environment = {"env_vars": {"FASTCNN_NUM_THREADS": str(threads)}}
    ray.init(num_cpus=workers, runtime_env=environment, include_dashboard=False)
    register_ray()
    with joblib.parallel_config("ray"):
        yield
    ray.shutdown()


def threads_of_worker() -> tuple[int, int]:
    """The number of this process, and of its threads."""
    return os.getpid(), fastcnn.get_num_threads()


# %% The search, which is the same for all of them.
if __name__ == "__main__":
    kinds = {"joblib": joblib_workers, "dask": dask_workers, "ray": ray_workers}
    kind = sys.argv[1] if len(sys.argv) > 1 else "joblib"
    (x, y), _ = fastcnn.load_mnist()
    images, labels = x[:300], np.asarray(y[:300])
    settings = {"learning_rate": [0.1, 0.01]}
    search = GridSearchCV(CNNClassifier(epochs=1, random_state=0), settings, cv=2, n_jobs=workers)
    with kinds[kind]():
        search.fit(images, labels)
        asked = joblib.Parallel(workers)(joblib.delayed(threads_of_worker)() for _ in range(8))
    print(f"best: {search.best_params_}, {search.best_score_:.1%} right, by {kind}")
    for process, number in sorted(set(asked)):
        print(f"worker {process}: {number} threads")
