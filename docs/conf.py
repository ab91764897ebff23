"""Sphinx: `make docs` builds the site, and every warning is an error."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from importlib.metadata import version as installed

# Airflow writes its configuration into its home as soon as it is imported, which its operators' pages do.
_AIRFLOW_HOME = os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="sealflow-docs-")

project = "sealflow"
author = "the sealflow maintainers"
version = release = installed("sealflow")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.typer",
]
exclude_patterns = ["_build"]

# The site is read where there is no network, and tells nobody who reads it.
html_theme = "furo"
html_title = f"sealflow {release}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

myst_heading_anchors = 4
# Fences without a language are text.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

#: Links to files of the checkout that are no pages. In the repository they lead there; on the site their names stand.
_OUTSIDE = re.compile(r"\[([^]]*)\]\((?:\.\./){2,}[^)]*\)")


def setup(app):
    """Connect what this site does otherwise than others."""
    app.connect("source-read", lambda app, docname, source: source.__setitem__(0, _OUTSIDE.sub(r"\1", source[0])))
    app.connect("build-finished", lambda app, error: shutil.rmtree(_AIRFLOW_HOME, ignore_errors=True))
