"""A net as a scikit-learn estimator."""
