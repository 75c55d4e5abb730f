"""scikit-learn's metadata routing, for an estimator that does not inherit from scikit-learn's.

With ``sklearn.set_config(enable_metadata_routing=True)`` pipelines, searches and cross-validation
ask each estimator for the metadata that it requests, and pass these by name.

Source: scikit-learn's user guide, "Metadata Routing".
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

UNCHANGED = "$UNCHANGED$"
"""scikit-learn's word for a request that does not change."""


class RequestsSampleWeight:
    """Requests of ``sample_weight`` for ``fit`` and ``score``.

    True requests the weights, and False ignores them. None (the default) raises an error if they
    are passed. A text requests them under another name.
    """

    _metadata_request: Any

    def set_fit_request(self, *, sample_weight: bool | str | None = UNCHANGED) -> Self:
        """Say whether :meth:`fit` gets a ``sample_weight`` that is passed to a meta-estimator.

        Raises ``RuntimeError`` where scikit-learn's metadata routing is not enabled.
        """
        return self._set_request("fit", sample_weight)

    def set_score_request(self, *, sample_weight: bool | str | None = UNCHANGED) -> Self:
        """Say whether :meth:`score` gets a ``sample_weight`` that is passed to a meta-estimator.

        Raises ``RuntimeError`` where scikit-learn's metadata routing is not enabled.
        """
        return self._set_request("score", sample_weight)

    def get_metadata_routing(self) -> Any:
        """The requests, a copy, as a ``sklearn.utils.metadata_routing.MetadataRequest``."""
        if hasattr(self, "_metadata_request"):
            return deepcopy(self._metadata_request)
        from sklearn.utils.metadata_routing import MetadataRequest

        requests = MetadataRequest(owner=type(self).__name__)
        for method in (requests.fit, requests.score):
            method.add_request(param="sample_weight", alias=None)
        return requests

    def _set_request(self, method: str, alias: bool | str | None) -> Self:
        import sklearn

        if not sklearn.get_config().get("enable_metadata_routing"):
            raise RuntimeError(
                "This method is only available when metadata routing is enabled. You can enable it "
                "using sklearn.set_config(enable_metadata_routing=True)."
            )
        if alias != UNCHANGED:
            requests = self.get_metadata_routing()
            getattr(requests, method).add_request(param="sample_weight", alias=alias)
            self._metadata_request = requests
        return self
