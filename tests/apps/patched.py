"""Another application, ``APP``, in a process that is patched before all else, as a ``flask run`` has to be told."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

from werkzeug.utils import import_string  # noqa: E402

app = import_string(os.environ["APP"])

__all__ = ["app"]
