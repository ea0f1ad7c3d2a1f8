"""Test a WebSocket view in process: no port, no server to start, no network. A leaf: nothing of the library imports it.

`connect` runs any WSGI application over one end of a socket pair, served for real by ``gevent.pywsgi``, and gives a
small blocking client at the other end. The client is built on the ``websockets`` library's protocol, so that this
library's codec is tested against another one. The process need not be monkey-patched: while the client waits, the
application runs. ::

    def test_echo(app):                                  # Flask's usual fixture
        with connect(app, "/echo") as client:
            client.send("hello")
            assert client.receive() == "hello"
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent import socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response as HandshakeResponse
from websockets.uri import parse_uri
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, TestResponse

from .errors import ConnectionClosed

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import WSGIApplication

__all__ = ["Client", "Refused", "connect"]


class Refused(Exception):
    """The application answered with something other than 101.

    Attributes:
        response: What it answered, as Flask's test client gives it: ``status_code``, ``headers``, ``text``, ``json``.
    """

    def __init__(self, response: TestResponse) -> None:
        super().__init__(f"{response.status}: {response.text[:500]}")
        self.response = response


def connect(
    app: WSGIApplication,
    path: str = "/",
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    compress: bool = False,
    timeout: float = 5.0,
) -> Client:
    """Open a WebSocket to an application.

    Args:
        app: Any WSGI application.
        path: With the query string, if there is one.
        headers: Of the handshake; a name given here replaces the one the client would send (``Host`` is ``localhost``).
        subprotocols: To offer, in order of preference.
        compress: Offer permessage-deflate (RFC 7692).
        timeout: Seconds to wait for whatever a call waits for, unless it is told otherwise.

    Raises:
        Refused: the application refused; it carries the HTTP response.
        TimeoutError: no answer.
    """
    ours, theirs = socket.socketpair()
    names = {"SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    greenlets = Pool()  # the connection's may be another one than its request's
    server = WSGIServer(("127.0.0.1", 0), app, log=None, spawn=greenlets, environ=names)
    greenlets.spawn(_serve, server.handle, theirs)
    client = Client(ours, greenlets, path, subprotocols, compress, timeout)
    try:
        client.open(dict(headers))
    except BaseException:
        client.abort()
        raise
    return client


def _serve(handle: Callable[..., object], sock: Any) -> None:
    try:
        handle(sock, ("127.0.0.1", 0))
    finally:
        sock.close()


class Client:
    """A connected WebSocket client, made by `connect`. A ``with`` block closes it.

    Attributes:
        headers: Of the 101, as a mapping that ignores case; ``get_all(name)`` for repeated ones.
        subprotocol: The one the application chose, or ``None``.
        socket: The gevent socket, for tests that send bytes of their own.
    """

    def __init__(
        self, sock: Any, greenlets: Pool, path: str, subprotocols: Sequence[str], compress: bool, timeout: float
    ) -> None:
        self.socket = sock
        self.headers: Any = {}
        self._greenlets = greenlets
        self._path = path
        self._timeout = timeout
        offer: Any = list(subprotocols) or None
        extensions = [ClientPerMessageDeflateFactory(client_max_window_bits=True)] if compress else None
        uri = parse_uri(f"ws://localhost{path}")
        self._protocol = ClientProtocol(uri, subprotocols=offer, extensions=extensions, max_size=None)
        self._received: deque[str | bytes] = deque()
        self._pongs: list[bytes] = []
        self._fragments: list[Frame] = []
        self._answer: HandshakeResponse | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, or ``None``."""
        return self._protocol.subprotocol

    @property
    def close_code(self) -> int | None:
        """The application's close code; 1005 if its frame had none, 1006 if it ended without one, ``None`` before."""
        closed = self._protocol.close_rcvd
        return closed.code if closed is not None else 1006 if self._ended else None

    @property
    def close_text(self) -> str:
        """The application's close text; empty if it gave none, or has not closed."""
        closed = self._protocol.close_rcvd
        return closed.reason if closed is not None else ""

    def open(self, headers: Mapping[str, str]) -> None:
        """Do the handshake; `connect` has called it."""
        request = self._protocol.connect()
        for name, value in headers.items():
            with suppress(KeyError):
                del request.headers[name]
            request.headers[name] = value
        self._protocol.send_request(request)
        self._pump_until(lambda: self._answer is not None or self._protocol.handshake_exc is not None)
        failure = self._protocol.handshake_exc
        if isinstance(failure, InvalidStatus):
            raise Refused(self._refusal(failure.response))
        if failure is not None:
            raise failure
        assert self._answer is not None
        self.headers = self._answer.headers

    def _refusal(self, answer: HandshakeResponse) -> TestResponse:
        status = f"{answer.status_code} {answer.reason_phrase}"
        request = EnvironBuilder(self._path).get_request()
        return TestResponse([bytes(answer.body or b"")], status, Headers(answer.headers.raw_items()), request)

    def send(self, message: str | bytes) -> None:
        """Send one message: ``str`` as text, ``bytes`` as binary.

        Raises:
            ConnectionClosed: the application has closed.
            TimeoutError: it does not read, perhaps because its own messages are not received here.
        """
        self._flush()
        if self.close_code is not None:
            raise ConnectionClosed(self.close_code, self.close_text)
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._flush()

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message.

        Args:
            timeout: Seconds to wait; ``None`` for the one given to `connect`.

        Raises:
            TimeoutError: none came.
            ConnectionClosed: the application closed; it carries code and text.
        """
        self._pump_until(lambda: bool(self._received) or self._ended, timeout)
        if self._received:
            return self._received.popleft()
        raise ConnectionClosed(self.close_code, self.close_text)

    def ping(self, payload: bytes = b"", timeout: float | None = None) -> None:
        """Send a ping and wait for its pong.

        Raises:
            TimeoutError: none came.
            ConnectionClosed: the application closed.
        """
        self._pongs.clear()
        self._protocol.send_ping(payload)
        self._pump_until(lambda: payload in self._pongs or self._ended, timeout)
        if payload not in self._pongs:
            raise ConnectionClosed(self.close_code, self.close_text)

    def close(self, code: int = 1000, text: str = "") -> None:
        """Close, and wait until the application's handler has ended. Does nothing to what is closed already.

        Raises:
            TimeoutError: the handler goes on.
        """
        if self._protocol.state.name == "OPEN":
            self._protocol.send_close(code, text)
        self.wait_closed()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the application has closed and its handler has ended.

        Raises:
            TimeoutError: it goes on.
        """
        seconds = self._timeout if timeout is None else timeout
        self._pump_until(lambda: self._ended, seconds)
        self.socket.close()
        if not self._greenlets.join(seconds):
            raise TimeoutError(f"the handler has not ended within {seconds} seconds")

    def abort(self) -> None:
        """Go away without a close frame, as a client does whose process dies."""
        self.socket.close()
        self._greenlets.join(self._timeout)

    @property
    def _ended(self) -> bool:
        return self._protocol.state.name == "CLOSED"

    def _flush(self) -> None:
        self.socket.settimeout(self._timeout)
        for data in self._protocol.data_to_send():
            try:
                if data:
                    self.socket.sendall(data)
                else:
                    self.socket.shutdown(socket.SHUT_WR)
            except TimeoutError:
                raise TimeoutError(f"the application has not read for {self._timeout} seconds") from None
            except OSError:
                pass  # the reading side tells how it ended

    def _pump_until(self, done: Callable[[], bool], timeout: float | None = None) -> None:
        """Exchange bytes until something is true."""
        seconds = self._timeout if timeout is None else timeout
        deadline = monotonic() + seconds
        self._flush()
        while not done():
            self.socket.settimeout(max(0.0, deadline - monotonic()))
            try:
                data = self.socket.recv(1 << 16)
            except (TimeoutError, BlockingIOError):
                raise TimeoutError(f"nothing came within {seconds} seconds") from None
            except OSError:
                data = b""
            finally:
                self.socket.settimeout(self._timeout)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            for event in self._protocol.events_received():
                self._take(event)
            self._flush()

    def _take(self, event: Any) -> None:
        if isinstance(event, HandshakeResponse):
            self._answer = event
        elif event.opcode is Opcode.PONG:
            self._pongs.append(bytes(event.data))
        elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragments.append(event)
            if event.fin:
                data = b"".join(bytes(part.data) for part in self._fragments)
                self._received.append(data.decode() if self._fragments[0].opcode is Opcode.TEXT else data)
                self._fragments.clear()
