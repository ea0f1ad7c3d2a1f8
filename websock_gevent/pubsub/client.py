"""The way to Redis: connections, timeouts, and errors that name their cause.

Owns redis-py and the check of the server's version. Whoever waits for the server holds up nobody else (`waiting`).
Refuses to know what is asked of the server.

redis-py's own retries are off: what a repeated command would do is known only where it comes from, and a connection
that was lost must be noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import redis
from gevent import monkey
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, ReadOnlyError, RedisError
from redis.retry import Retry

from ..locks import new_lock
from .errors import AccessDenied, MemoryFull, PubSubError, ReadOnly, Unavailable, Unsupported, shown
from .waiting import aside

__all__ = ["Client", "chunks"]

T = TypeVar("T")

#: Streams with exclusive ranges (`XRANGE key (id +`) came with it.
OLDEST_SERVER = (6, 2)
#: Connections for commands, for each process; who comes when all are in use waits for one.
CONNECTIONS = 16
#: Names in one command, or scripts in one go, at the most.
CHUNK = 500

_connection: Any = redis.connection
_Local: Any = monkey.get_original("threading", "local")


class Client:
    """Runs commands. May be used from any greenlet and any thread.

    Args:
        url: Of the server.
        timeout: Seconds to wait for it.

    Raises:
        ValueError: the address has an option that redis-py does not know, or a value that it does not take.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self.shown = shown(url)
        self._timeout = timeout
        self._lock = new_lock()
        self._shared: Any = None
        self._local = _Local()  # gevent's sockets belong to the thread that made them
        self._checked = False
        self._options: dict[str, Any] = {  # whatever the address says: what is read here depends on them
            "decode_responses": True,
            "encoding": "utf-8",
            "encoding_errors": "replace",
            "protocol": 2,
            "health_check_interval": 0,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
        }
        try:
            self._new_connection()  # a wrong address is an error now, not when it is used first
        except (TypeError, ValueError, RedisError) as error:
            raise ValueError(f"the address {self.shown} with its options is not good: {error}") from None

    def _new_pool(self) -> Any:
        limits = {"max_connections": CONNECTIONS, "timeout": self._timeout}
        # Not from_url: there, the address has the last word.
        return _connection.BlockingConnectionPool(**{**limits, **_connection.parse_url(self._url), **self._options})

    def _new_connection(self) -> Any:
        pool = self._new_pool()
        return pool.connection_class(**pool.connection_kwargs)

    def _redis(self) -> Any:
        if monkey.is_module_patched("socket"):
            own = getattr(self._local, "redis", None)
            if own is None:
                own = self._local.redis = redis.Redis(connection_pool=self._new_pool())
            return own
        with self._lock:
            if self._shared is None:
                self._shared = redis.Redis(connection_pool=self._new_pool())
            return self._shared

    def connection(self) -> Any:
        """Return a new connection of redis-py, connected, for one's own use."""
        connection = self._new_connection()
        with self.errors():
            connection.connect()
        return connection

    def run(self, function: Callable[[Any], Any]) -> Any:
        """Have a function ask the server, given redis-py's client.

        Raises:
            PubSubError: the server cannot be asked, or refuses.
        """
        return aside(self._run, function)

    def _run(self, function: Callable[[Any], Any]) -> Any:
        client = self._redis()
        if not self._checked:
            self.check()
        try:
            with self.errors():
                return function(client)
        except ReadOnly:
            # Perhaps it was the master when these connections were made, and the address leads elsewhere by now.
            with self._lock:
                self._shared = self._local.redis = None
            with self.errors():
                return function(self._redis())

    def script(self, code: str, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script; loaded into the server if it is not there.

        Raises:
            PubSubError: the server cannot be asked, or refuses.
        """
        return self.run(lambda client: client.register_script(code)(keys=keys, args=arguments))

    def scripts(self, code: str, calls: Sequence[tuple[list[str], list[Any]]]) -> list[Any]:
        """Run a script several times in one go, given keys and arguments of each. Errors as of `script`."""

        def run(client: Any) -> Any:
            script = client.register_script(code)
            with client.pipeline(transaction=False) as pipeline:
                for keys, arguments in calls:
                    script(keys=keys, args=arguments, client=pipeline)
                return pipeline.execute()

        results: list[Any] = self.run(run)
        return results

    def check(self) -> str:
        """See whether the server is one that will do. Return the name of its run, which is another after a restart.

        Raises:
            PubSubError: it will not do, or cannot be asked.
        """
        with self.errors():
            info = self._redis().info("server")
        version = tuple(int(part) for part in re.findall(r"\d+", str(info["redis_version"]))[:2])
        if version < OLDEST_SERVER:
            raise Unsupported(f"Redis at {self.shown} is version {info['redis_version']}; PubSub needs 6.2 or newer")
        if info.get("redis_mode") == "cluster":
            raise Unsupported(f"Redis at {self.shown} is part of a Redis Cluster, which PubSub does not support")
        self._checked = True
        return str(info["run_id"])

    @property
    def where(self) -> tuple[Any, ...]:
        """Which database of which server this is, as far as the address tells."""
        options = {"host": "localhost", "port": 6379, "db": 0, **_connection.parse_url(self._url)}
        return tuple(options.get(name) for name in ("path", "host", "port", "db"))

    def close(self) -> None:
        """Close the connections for commands, as far as they are this thread's."""
        for client in (self._shared, getattr(self._local, "redis", None)):
            if client is not None:
                client.connection_pool.disconnect()

    def errors(self) -> _Errors:
        """In its ``with`` block, errors of redis-py become ours."""
        return _Errors(self.shown)


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterable[Sequence[T]]:
    """Divide what is too much to be asked in one go."""
    return (items[at : at + size] for at in range(0, len(items), size))


class _Errors:
    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (RedisError, OSError)):
            raise _translated(error, self._shown) from error


#: What the server says when a user has no right to do something in a script: up to 7.0, and from then on.
_DENIALS = ("executing the script can't", "ACL failure in script")


def _translated(error: Exception, shown: str) -> PubSubError:
    """Choose the class by the cause; the words of the server, where there are some, are the best text."""
    text = str(error) or type(error).__name__
    if isinstance(error, (AuthenticationError, NoPermissionError)) or any(denial in text for denial in _DENIALS):
        return AccessDenied(f"Redis at {shown} denies access: {text}")
    if "used memory > 'maxmemory'" in text:
        return MemoryFull(f"Redis at {shown} has no memory left (maxmemory): {text}")
    if isinstance(error, ReadOnlyError) or "-READONLY " in text:  # 6.2 shows what a script met in a text of its own
        return ReadOnly(f"Redis at {shown} is a read-only replica; PubSub needs the master: {text}")
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError)):
        broken = isinstance(error, redis.ConnectionError) and not isinstance(error, BusyLoadingError)
        return Unavailable(f"Redis at {shown} cannot be reached: {text}", broken)
    return PubSubError(f"Redis at {shown} refuses: {text}")
