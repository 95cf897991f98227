"""Settings of the documentation: ``sphinx-build -W docs OUT`` executes the tutorials."""

import bayesmol

project = "bayesmol"
author = "bayesmol developers"
release = version = bayesmol.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**/jupyter_execute", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"bayesmol {version}"

myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 2

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("Attributes", "params_style")]  # several names may share a description


def setup(app):
    """Keep napoleon from reading what stands before a colon in the docstring of a property as its type."""
    colon, other = ": ", "\ue000"

    def exchange(old, new):
        def process(app, what, name, obj, options, lines):
            if what in {"attribute", "property"}:
                lines[:] = [line.replace(old, new) for line in lines]

        return process

    app.connect("autodoc-process-docstring", exchange(colon, other), priority=400)
    app.connect("autodoc-process-docstring", exchange(other, colon), priority=600)
