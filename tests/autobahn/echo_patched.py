"""echo.py in a process that is patched before anything else."""

from gevent import monkey

monkey.patch_all()

from echo import app  # noqa: E402

__all__ = ["app"]
