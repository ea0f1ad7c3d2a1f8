from typing import Any

MSG_SOCKET_DEAD: str
MSG_ALREADY_CLOSED: str

class WebSocket:
    __slots__ = ("closed", "environ", "handler", "raw_read", "raw_write", "stream")
    environ: Any
    closed: bool
    stream: Any
    raw_write: Any
    raw_read: Any
    handler: Any
    @property
    def origin(self) -> str | None: ...
    @property
    def path(self) -> str | None: ...
    @property
    def version(self) -> str | None: ...
