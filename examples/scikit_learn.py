"""Cross-validation of CNNClassifier, with scikit-learn (pip install scikit-learn)."""

# %% An estimator: it takes images as they are, or rows of pixels.
from sklearn.model_selection import GridSearchCV, cross_val_score

import fastcnn

(x, y), (x_test, y_test) = fastcnn.load_mnist()
x, y = x[:1500], y[:1500]
classifier = fastcnn.CNNClassifier("article", epochs=2, random_state=0)

# %% Three folds.
print("accuracy of each fold:", cross_val_score(classifier, x, y, cv=3).round(3))

# %% A search for the learning rate.
search = GridSearchCV(classifier, {"learning_rate": [0.001, 0.01]}, cv=2)
search.fit(x, y)
print("best:", search.best_params_, f"{search.best_score_:.3f}")
print(f"test: {search.score(x_test[:1000], y_test[:1000]):.3f}")
