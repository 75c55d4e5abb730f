"""The documentation site; ``make site`` builds it."""

from __future__ import annotations

import sys
from pathlib import Path

import fastcnn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "fastcnn"
author = "the authors of fastcnn"
version = release = fastcnn.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "links_of_pages",
    "pictures_of_pages",
]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what arguments are
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # so that an attribute with a property of its own is described once
napoleon_custom_sections = ["Source", "Sources"]
html_show_copyright = False
html_theme = "furo"
html_title = f"fastcnn {version}"
