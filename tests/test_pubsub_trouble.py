"""PubSub over a Redis that is at odds with it: what others do there, what is in its address, and who takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis_servers import RedisServer, redis_server
from test_pubsub_redis import QUICK, page_on

from websock_gevent.pubsub import PubSub

Make = Callable[..., PubSub]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a PubSub with short times, which is closed at the end of the test."""
    made: list[PubSub] = []

    def make(url: str, **settings: Any) -> PubSub:
        made.append(PubSub(url, **{**QUICK, **settings}))
        return made[-1]

    yield make
    for pubsub in made:
        pubsub.close()


@pytest.mark.parametrize(
    "options",
    [
        "decode_responses=False&encoding=latin-1&encoding_errors=ignore",
        "protocol=3",
        "health_check_interval=1",
        "socket_timeout=0.000001&retry_on_timeout=True&retry_on_error=x",
        "max_connections=1&client_name=chat",
    ],
)
def test_options_of_an_address_do_not_change_how_it_is_read(
    redis: RedisServer, make: Make, options: str, caplog: Any
) -> None:
    pubsub = make(f"{redis.url}?{options}", watchdog=30)
    with page_on(pubsub, "lobby") as page:
        pubsub.broadcast("lobby", "ü\n")
        page.wait_for(1)
        gevent.sleep(1.1 if "health" in options else 0)  # what has to pass is time itself
        pubsub.subscribe("später", page.mailbox)
        pubsub.track("später", "ann", 1, page.mailbox)
        assert pubsub.list("später") == {"ann": [1]}
        assert page.rest(pubsub, "später") == ["ü\n", ("join", "später", "ann", 1)]
    assert not [record for record in caplog.records if "PubSub" in record.getMessage()]
