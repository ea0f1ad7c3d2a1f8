"""A ``start_response`` between an application and its server, for middlewares of ours.

Owns that `servers` finds the server behind it as behind the server's own. Knows nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from _typeshed.wsgi import StartResponse

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["drop", "relayed"]


def relayed(
    start_response: StartResponse, on_status: Callable[[str, list[tuple[str, str]]], Callable[[bytes], object] | None]
) -> StartResponse:
    """Make a ``start_response`` that asks first.

    Args:
        start_response: The server's.
        on_status: Gets status and headers; returns where the body is to be written instead, ``None`` to pass it all on.
    """

    def relay(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Any:
        write = on_status(status, headers)
        if write is not None:
            return write
        return start_response(status, headers, *([exc_info] if exc_info else []))

    relay.__self__ = getattr(start_response, "__self__", None)  # type: ignore[attr-defined]
    return relay


def drop(data: bytes) -> None:
    """Where an application may write to whose answer is not sent."""
