"""Sphinx configuration.

The build needs no network. Set ``SPARSENODE_DOCS_INTERSPHINX=1`` to resolve links to the documentation
of other projects, and to warn about every link that leads nowhere; Read the Docs does so by itself.
"""

import os
import warnings
from datetime import datetime
from importlib.metadata import metadata
from pathlib import Path
from shutil import copy2

from numpy.typing import ArrayLike
from sphinx.ext.napoleon import NumpyDocstring

# -- Project ---------------------------------------------------------------------------------------

info = metadata("sparsenode")
urls = dict(entry.split(", ", 1) for entry in info.get_all("Project-URL"))

project = info["Name"]
author = info["Author"]
copyright = f"{datetime.now():%Y}, {author}"
version = release = info["Version"]

online = bool(os.environ.get("READTHEDOCS") or os.environ.get("SPARSENODE_DOCS_INTERSPHINX"))

# -- Tutorials: notebooks stand at the top of the repository, Sphinx wants them among its pages ------

here = Path(__file__).parent
for notebook in sorted((here.parent / "tutorials").glob("*.ipynb")):
    (here / "tutorials").mkdir(exist_ok=True)
    copy2(notebook, here / "tutorials" / notebook.name)
copy2(here / "tutorials.md", here / "tutorials" / "index.md")

# -- General ---------------------------------------------------------------------------------------

needs_sphinx = "8.1"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",  # after napoleon
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxext.opengraph",
    *(["sphinx.ext.intersphinx"] if online else []),
]
# .rst first: autosummary writes its pages with the first suffix
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "tutorials.md", "Thumbs.db", ".DS_Store", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
default_role = "literal"
suppress_warnings = ["config.cache"]  # typehints_formatter is a function

nitpicky = online
nitpick_ignore: list[tuple[str, str]] = [
    # Links outside our control that lead nowhere, such as ("py:class", "scvi.some.private.Class").
]

# -- Docstrings ------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_member_order = "groupwise"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_include_init_with_doc = False
napoleon_use_ivar = True
napoleon_use_param = True
napoleon_use_rtype = True
typehints_defaults = "braces"
# Calls of this extension that Sphinx 10 will remove: one line of noise a docstring on Python 3.11.
warnings.filterwarnings("ignore", module="sphinx_autodoc_typehints")
always_use_bars_union = True


def returns_as_prose(docstring, section):
    """The section Returns as it is written: types come from annotations, so its lines are no names and types."""
    lines = docstring._dedent(docstring._consume_to_next_section())
    lines = lines[lines[:1] == [":"] :]  # with which sphinx_autodoc_typehints marks that the first line is no type
    return [*docstring._format_block(":returns: ", lines), ""]


NumpyDocstring._parse_returns_section = returns_as_prose


def typehints_formatter(annotation, config):
    """Name of an alias that would be spelled out over several lines."""
    return ":py:data:`~numpy.typing.ArrayLike`" if annotation == ArrayLike else None


# -- Pages -----------------------------------------------------------------------------------------

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "html_admonition", "html_image"]
myst_heading_anchors = 4
myst_url_schemes = ("http", "https", "mailto")
nb_execution_mode = "off"  # notebooks are committed with their outputs
nb_merge_streams = True
nb_output_stderr = "remove"

bibtex_bibfiles = ["../src/sparsenode/references.bib"]
bibtex_reference_style = "author_year"

ogp_site_url = urls["Documentation"]
ogp_social_cards = {"enable": False}

# -- Links to other projects -----------------------------------------------------------------------

intersphinx_mapping = {
    "anndata": ("https://anndata.scverse.org/en/stable/", None),
    "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "mudata": ("https://mudata.readthedocs.io/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/docs/", None),
    "python": ("https://docs.python.org/3/", None),
    "scanpy": ("https://scanpy.scverse.org/en/stable/", None),
    "scipy": ("https://docs.scipy.org/doc/scipy/", None),
    "scvi-tools": ("https://docs.scvi-tools.org/en/stable/", None),
    "sklearn": ("https://scikit-learn.org/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}

# -- HTML ------------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["css/custom.css"]
html_theme_options = {
    "repository_url": urls["Source"],
    "repository_branch": "main",
    "path_to_docs": "docs/",
    "use_repository_button": True,
    "use_edit_page_button": True,
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the sidebar has a search field
}
pygments_style = "default"
