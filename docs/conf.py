"""How the pages are built: `make docs`. Nothing is fetched from a network."""

from importlib.metadata import version as installed

project = "snnsl-plugin"
author = "the snnsl-plugin authors"
project_copyright = "the snnsl-plugin authors"
release = version = installed("snnsl-plugin")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
# Links to a heading (`method.md#where-we-choose`) work here as they do on a forge.
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"snnsl-plugin {release}"


def list_figures(app, docname, source):
    """Adds the pages of figures that this checkout has: a toctree that names a missing page, or a glob, would warn."""
    found = sorted(name for name in app.env.found_docs if name == "benchmarks" or name.startswith("results/"))
    if docname == "index" and found:
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", ":caption: Measured", "", *found, "```", ""])


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", list_figures)
