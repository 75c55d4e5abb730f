"""Pictures of what a net is, sees and gets wrong; they need Matplotlib, ``fastcnn[plots]``.

Each function draws into the ``ax`` or ``figure`` that it is given, or makes a figure of ``width``
inches, and returns the axes or the figure. Nothing of fastcnn imports this package by itself.

>>> from fastcnn import Sequential, plots
>>> from fastcnn.nn.layers import Dense
>>> axes = plots.graph(Sequential([Dense(2)], (3,)), width=4)
>>> axes.figure.savefig("graph.png")  # doctest: +SKIP
"""

from fastcnn.models.probing import Response as Response
from fastcnn.models.probing import occlusion_map as occlusion_map
from fastcnn.models.probing import preferred_image as preferred_image
from fastcnn.models.probing import strongest_responses as strongest_responses
from fastcnn.plots.curves import history as history
from fastcnn.plots.graphs import graph as graph
from fastcnn.plots.layers import feature_maps as feature_maps
from fastcnn.plots.layers import filters as filters
from fastcnn.plots.layers import sobel as sobel
from fastcnn.plots.reasons import occlusion as occlusion
from fastcnn.plots.reasons import preferred_images as preferred_images
from fastcnn.plots.reasons import responses as responses
from fastcnn.plots.reasons import saliency as saliency
from fastcnn.plots.results import confusion_matrix as confusion_matrix
from fastcnn.plots.results import mistakes as mistakes
