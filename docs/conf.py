"""How Sphinx builds these pages. Nothing is fetched: the build works without a network."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.highlighting import lexers

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import websock_gevent  # noqa: E402

project = "websock_gevent"
copyright = "the authors of websock_gevent"
version = release = websock_gevent.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest", "newest"]
exclude_patterns = ["_build"]
nitpicky = True
doctest_default_flags = doctest.ELLIPSIS
#: What docstrings put between single backticks is a name of ours.
default_role = "py:obj"

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: name for name in ("Close", "Control", "Message", "Messages", "Origins", "Reason", "Result", "Handler")
}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

#: Types in signatures may be of other projects, whose pages are not looked at, or ours alone to make. What docstrings
#: name is checked, but for names of gevent and Werkzeug.
nitpick_ignore_regex = [(r"py:class", r".*"), (r"py:.*", r"(GreenletExit|werkzeug\..*|websock_gevent\.websock\.S)")]
#: Two libraries have a `ConnectionClosed`, and so has `websock_gevent.legacy`.
suppress_warnings = ["ref.python"]
lexers["haproxy"] = TextLexer()

html_theme = "furo"
html_title = "websock_gevent"
html_copy_source = False
html_use_index = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Node | None:
    """Find what a docstring of a submodule calls by its short name in ``websock_gevent`` itself."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or target.startswith("websock_gevent."):
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"websock_gevent.{target}", node, text
    )


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", resolve)
