"""Sphinx: how the manual is built. `sphinx-build -W docs build/docs` makes it."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "pytest-bpfmaps"
author = "the pytest-bpfmaps developers"
version = release = version_of("pytest-bpfmaps")

extensions = ["myst_parser", "sphinx.ext.autodoc", "reference_pages"]
exclude_patterns = ["_extensions"]
default_role = "py:obj"  # `Name` in a docstring
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_title = f"pytest-bpfmaps {release}"
html_show_sourcelink = False
html_show_copyright = False
smartquotes = False  # an option begins with two hyphens
pygments_style = "default"
pygments_dark_style = "github-dark"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
highlight_language = "python"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
autodoc_class_signature = "separated"  # fixtures make the objects: reference_pages.py leaves constructors out
add_module_names = False
python_use_unqualified_type_names = True
