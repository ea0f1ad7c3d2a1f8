"""The application ``served`` in a process that is patched before anything else, as a ``flask run`` has to be told."""

from gevent import monkey

monkey.patch_all()

from served import app  # noqa: E402

__all__ = ["app"]
