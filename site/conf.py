"""Sphinx reads this. The pages are written by pages.py; notebooks are shown as saved, never run."""

import tomllib
from pathlib import Path

here = Path(__file__).resolve().parent
root = next(folder for folder in here.parents if (folder / "pyproject.toml").is_file())
about = tomllib.loads((root / "pyproject.toml").read_text())["project"]

project, release, language = "blendlab", about["version"], "en"
author = copyright = about["authors"][0]["name"]
extensions = ["myst_nb"]
exclude_patterns = [".jupyter_cache", "jupyter_execute"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # they need a running kernel, and would come from elsewhere
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline"]
myst_heading_anchors = 3
mathjax_path = "mathjax/tex-svg-full.js"
add_module_names = False
pygments_style = "default"

html_theme = "sphinx_book_theme"
html_title = f"blendlab {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "navbar_persistent": [],  # the search field is in the sidebar
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "pygments_light_style": "a11y-light",
    "pygments_dark_style": "a11y-dark",
}
smartquotes_action = "qe"  # commands keep their two dashes
