"""A grid search whose trainings run in several processes, which share the cores."""

# %% Some digits, and the settings to try.
import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV

import fastcnn
from fastcnn import CNNClassifier

(x, y), _ = fastcnn.load_mnist()
images, labels = x[:300], np.asarray(y[:300])
settings = {"learning_rate": [0.1, 0.01]}

# %% joblib tells each worker how many threads it may use, and fastcnn follows.
workers = min(2, joblib.cpu_count())
search = GridSearchCV(CNNClassifier(epochs=1, random_state=0), settings, cv=2, n_jobs=workers)

# %% The same lines run on a cluster; docs/distributed.md shows Dask and Ray in place of "loky".
with joblib.parallel_config("loky", inner_max_num_threads=1):
    search.fit(images, labels)
print(f"best: {search.best_params_}, {search.best_score_:.1%} right, {workers} workers")
