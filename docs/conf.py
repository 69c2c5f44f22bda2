"""Settings of the documentation: Markdown by MyST, the reference from docstrings, the furo theme; no network."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

project = "SAGE"
author = "SAGE maintainers"
copyright = "SAGE maintainers"
release = "0.1.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

# --- Markdown
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# --- Docstrings
# They are written for readers of the source: names stand in single backticks.
default_role = "code"
# `Config` of an operator is an alias of a private model; its keys stand in the class's docstring.
autodoc_default_options = {"members": True, "member-order": "bysource", "exclude-members": "Config"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Config", "params_style")]
# A class is documented under each package that exports it, so that a short name in a signature has several
# targets; which of them a link takes does not matter.
suppress_warnings = ["ref.python"]

# --- HTML
html_theme = "furo"
html_title = "SAGE"
html_static_path = ["_static"]
html_css_files = ["sage.css"]
html_copy_source = False
html_show_sphinx = False


def normalise_docstring(app: Sphinx, what: str, name: str, subject: object, options: object, lines: list[str]) -> None:
    """Make reStructuredText of our docstrings where the two would be read differently; called before napoleon.

    The first line of an attribute's docstring may have a colon inside of code (napoleon would take what stands
    before it for a type), and a paragraph may go on with an indented line (a definition list otherwise).
    """
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", lines[0])
    for number in range(1, len(lines)):
        before, line = lines[number - 1], lines[number]
        opens = not before or before[0].isspace() or before.startswith(("- ", ">>>", "...")) or before.endswith(":")
        if not opens and line[:1].isspace() and line.strip():
            lines[number] = line.lstrip()


def trim_code(app: Sphinx, doctree: nodes.document) -> None:
    """Take the blank line off that ends the output of an example (doctest needs it before the closing fence)."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip()
        block.rawsource = text
        block.children = [nodes.Text(text)]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("doctree-read", trim_code)
    app.connect("autodoc-process-docstring", normalise_docstring, priority=400)
