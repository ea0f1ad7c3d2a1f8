"""The chat of the examples without a browser: what it does while Redis is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_servers import redis_server
from serving import ROOT, free_port

from websock_gevent import ConnectionClosed
from websock_gevent.testing import connect

TRY_AGAIN = 1013


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Make the application for a Redis with this address."""
    monkeypatch.syspath_prepend(str(ROOT))
    from examples.flask_app import create_app

    made: list[Any] = []

    def chat(url: str) -> Any:
        monkeypatch.setenv("CHAT_REDIS_URL", url)
        made.append(create_app())
        return made[-1]

    yield chat
    for app in made:
        app.extensions["chat_pubsub"].close()


def cookie_of(app: Any) -> dict[str, str]:
    """Log in."""
    client = app.test_client()
    client.post("/login", data={"name": "Ann"})
    return {"Cookie": f"session={client.get_cookie('session').value}"}


def test_while_redis_is_away_the_page_is_told_to_try_again(chat: Callable[[str], Any], caplog: Any) -> None:
    app = chat(f"redis://127.0.0.1:{free_port()}")
    assert "Nobody knows who is here" in app.test_client().get("/").text
    with connect(app, "/room", headers=cookie_of(app)) as page:
        with pytest.raises(ConnectionClosed) as closed:
            page.receive()
    assert closed.value.code == TRY_AGAIN
    assert "Traceback" not in caplog.text


def test_what_was_said_in_vain_is_to_be_said_again(chat: Callable[[str], Any], tmp_path: Path, caplog: Any) -> None:
    """The page does that by itself: it has it in its outbox until it comes back from the server."""
    with redis_server(tmp_path) as redis:
        app = chat(redis.url)
        with connect(app, "/room", headers=cookie_of(app)) as page:
            assert '"welcome"' in str(page.receive())
            redis.kill()
            page.send('{"type": "message", "id": "1", "text": "hello"}')
            with pytest.raises(ConnectionClosed) as closed:
                while page.receive():
                    pass
    assert closed.value.code == TRY_AGAIN
    assert "Traceback" not in caplog.text
