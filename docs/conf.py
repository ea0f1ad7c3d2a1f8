"""How Sphinx builds these pages. Nothing is fetched: the build works without a network."""

from __future__ import annotations

import doctest
import sys
from importlib import import_module
from pathlib import Path

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.highlighting import lexers
from sphinx.util.inspect import TypeAliasForwardRef

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
    name: name for name in ("Close", "Control", "Handler", "Message", "Messages", "Origins", "Reason", "Result")
}
#: Where an alias is a part of another type, Sphinx shows its own object for it.
TypeAliasForwardRef.__repr__ = lambda self: self.name  # type: ignore[method-assign]
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
    """Find what a docstring calls by its short name: in ``websock_gevent``, or, if it has no entry, where it stands."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or target.startswith("websock_gevent."):
        return None
    full = f"websock_gevent.{target}"
    found = env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, node["reftype"], full, node, text)
    return found or (text if is_there(node, target) else None)


def is_there(node: pending_xref, name: str) -> bool:
    """Tell whether the class or module of a docstring has such a name, though that has no docstring itself."""
    module = import_module(node.get("py:module") or "websock_gevent")
    return any(hasattr(owner, name) for owner in (module, getattr(module, node.get("py:class") or "", None)))


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", resolve)
