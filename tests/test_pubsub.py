"""What PubSub promises, on both backends: one process, with connections of its own, tells no difference."""

from __future__ import annotations

import gc
import json
import math
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from enum import Enum
from typing import Any

import gevent
import pytest
from redis_servers import RedisServer, redis_server
from support import DEADLINE, application, open_client, until
from test_mailbox import Open, in_thread

from websock_gevent import Mailbox, WebSock, current
from websock_gevent.deflate import Deflate
from websock_gevent.pubsub import OLDEST, PubSub
from websock_gevent.pubsub.errors import shown
from websock_gevent.signals import PubsubGap, pubsub_gap
from websock_gevent.testing import Client, connect

Make = Callable[..., PubSub]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make a PubSub, which is closed at the end of the test."""
    url: str | None = None
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        server.client().flushall()
        url = server.url
    made: list[PubSub] = []

    def make(**settings: Any) -> PubSub:
        made.append(PubSub(url, **settings))
        return made[-1]

    yield make
    for pubsub in made:
        pubsub.close()


@pytest.fixture
def pubsub(make: Make) -> PubSub:
    return make()


class Page(Open):
    """A connection whose mail can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.news = gevent.event.Event()

    def handle_info(self, message: Any, state: Any) -> Any:
        result = super().handle_info(message, state)
        self.news.set()
        return result

    def wait_for(self, count: int) -> list[Any]:
        """Wait for so many messages in all, and return them."""
        with gevent.Timeout(
            DEADLINE, AssertionError(f"{count} messages were expected, the last of {len(self.mail)}: {self.mail[-9:]}")
        ):
            while len(self.mail) < count:
                self.news.wait()
                self.news.clear()
        return self.mail

    def rest(self, pubsub: PubSub, topic: str) -> list[Any]:
        """Publish a last message, wait for it, and return what else has come."""
        last = f"{LAST} {uuid.uuid4()}"
        pubsub.broadcast(topic, last)
        with gevent.Timeout(DEADLINE, AssertionError(f"the last one has not come, but {self.mail[-9:]}")):
            while last not in self.mail and not any(last in one for one in self.mail if isinstance(one, tuple)):
                self.news.wait()
                self.news.clear()
        return [one for one in self.mail if LAST not in str(one)]


LAST = "the last one"


@pytest.fixture
def enter() -> Iterator[Callable[[], tuple[Page, Client]]]:
    """Open connections; they are closed at the end of the test."""
    clients: list[Client] = []

    def enter() -> tuple[Page, Client]:
        page = Page()
        client = open_client(page, timeout=None, ping_interval=None)
        clients.append(client)
        client.ping()
        return page, client

    yield enter
    for client in clients:
        client.abort()


Enter = Callable[[], tuple[Page, Client]]


def test_a_message_reaches_the_subscribers_and_nobody_else(pubsub: PubSub, enter: Enter) -> None:
    (ann, _), (bob, _), (cem, _) = enter(), enter(), enter()
    for page in (ann, bob):
        pubsub.subscribe("lobby", page.mailbox)
    pubsub.subscribe("elsewhere", cem.mailbox)
    pubsub.broadcast("lobby", {"text": "hello"})
    for page in (ann, bob):
        assert page.rest(pubsub, "lobby") == [{"text": "hello"}]
    assert cem.rest(pubsub, "elsewhere") == []


def test_the_example_of_the_contract(pubsub: PubSub) -> None:
    class Chat(WebSock[Any]):
        def init(self, state: Any) -> Any:
            pubsub.subscribe("lobby")
            return "push", "welcome", state

        def handle_in(self, message: Any, state: Any) -> Any:
            pubsub.broadcast("lobby", {"text": message})
            return "ok", state

        def handle_info(self, message: Any, state: Any) -> Any:
            return "push", json.dumps(message), state

    with open_client(Chat) as one, open_client(Chat) as two:
        assert [one.receive(), two.receive()] == ["welcome", "welcome"]
        one.send("hi")
        assert [one.receive(), two.receive()] == ['{"text": "hi"}'] * 2


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe", "broadcast_from", "track", "untrack", "monitor"])
def test_outside_of_a_callback_there_is_no_mailbox(pubsub: PubSub, method: str) -> None:
    arguments = ["lobby"] if method in ("subscribe", "unsubscribe", "monitor") else ["lobby", "ann"]
    with pytest.raises(RuntimeError, match="inside a callback"):
        getattr(pubsub, method)(*arguments)


VALUES = [
    ((1, 2), [1, 2]),
    ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
    ("\N{PARTY POPPER} \x00 \u2028 ü", "\N{PARTY POPPER} \x00 \u2028 ü"),
    (2**80, 2**80),
    (1.5, 1.5),
    (None, None),
    ([{"a": [True, {}]}], [{"a": [True, {}]}]),
]


def test_values_are_what_json_makes_of_them(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox)
    for value, _ in VALUES:
        pubsub.broadcast("lobby", value)
        pubsub.send(page.mailbox.address, value)
    expected = [made for _, made in VALUES]
    mail = page.wait_for(2 * len(VALUES))
    assert sorted(map(json.dumps, mail)) == sorted(map(json.dumps, 2 * expected))


LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"when": [date(2026, 1, 2)]}, r"datetime.date\(2026, 1, 2\), of type date"),
        ({"raw": b"bytes"}, "b'bytes', of type bytes"),
        ([{1, 2}], "of type set"),
        ({(1, 2): 3}, r"\{\(1, 2\): 3\}|tuple"),
        (math.nan, "nan"),
        ([math.inf], "inf"),
        ("\ud800", "surrogate"),
        (10**5000, "int object at|digits"),
        (LOOP, "Circular"),
        (DEEP, "nested"),
    ],
    ids=["date", "bytes", "set", "key", "nan", "inf", "surrogate", "digits", "loop", "deep"],
)
def test_what_json_cannot_carry_is_refused_by_name(pubsub: PubSub, enter: Enter, value: Any, named: str) -> None:
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox)
    for refused in (
        lambda: pubsub.broadcast("lobby", value),
        lambda: pubsub.broadcast_from("lobby", value, page.mailbox),
        lambda: pubsub.send(page.mailbox.address, value),
        lambda: pubsub.track("lobby", "ann", value, page.mailbox),
    ):
        with pytest.raises((TypeError, ValueError), match=f"(?s)JSON cannot carry.*({named})"):
            refused()
    assert page.rest(pubsub, "lobby") == []
    assert pubsub.list("lobby") == {}


@pytest.mark.parametrize("topic", ["", None, 7, b"lobby", "\ud800"])
def test_a_topic_is_a_text(pubsub: PubSub, enter: Enter, topic: Any) -> None:
    page, _ = enter()
    for refused in (
        lambda: pubsub.broadcast(topic, 1),
        lambda: pubsub.subscribe(topic, page.mailbox),
        lambda: pubsub.track(topic, "ann", None, page.mailbox),
        lambda: pubsub.list(topic),
    ):
        with pytest.raises((TypeError, ValueError), match="topic|surrogate"):
            refused()


@pytest.mark.parametrize("topic", ["*", "a*", "[a]", "?", "%s", "{0}", "a b\n c", "}", "\x00", "ü" * 1000])
def test_a_topic_is_a_name_and_no_pattern(pubsub: PubSub, enter: Enter, topic: str) -> None:
    (page, _), (other, _) = enter(), enter()
    pubsub.subscribe(topic, page.mailbox)
    pubsub.subscribe("a", other.mailbox)
    assert pubsub.broadcast("a", "not for the pattern")
    pubsub.broadcast(topic, "{0} %s * \n")
    assert page.rest(pubsub, topic) == ["{0} %s * \n"]
    assert other.rest(pubsub, "a") == ["not for the pattern"]


class Room(str, Enum):
    """A text, though ``str()`` makes another one of it."""

    LOBBY = "lobby"


def test_a_text_of_a_class_of_its_own_counts_as_the_text(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    pubsub.subscribe(Room.LOBBY, page.mailbox)
    pubsub.track(Room.LOBBY, Room.LOBBY, 1, page.mailbox)
    pubsub.broadcast("lobby", "hello")
    assert page.rest(pubsub, "lobby") == [("join", "lobby", "lobby", 1), "hello"]
    assert pubsub.list("lobby") == {"lobby": [1]}
    pubsub.untrack("lobby", "lobby", page.mailbox)
    assert pubsub.list(Room.LOBBY) == {}


@pytest.mark.parametrize("mailbox", ["another topic", 7, object()], ids=["text", "number", "object"])
def test_a_mailbox_is_one(pubsub: PubSub, enter: Enter, mailbox: Any) -> None:
    """Whoever gives something else is told, and nobody else notices."""
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox)
    for refused in (
        lambda: pubsub.subscribe("lobby", mailbox),
        lambda: pubsub.unsubscribe("lobby", mailbox),
        lambda: pubsub.broadcast_from("lobby", 1, mailbox),
        lambda: pubsub.track("lobby", "ann", 1, mailbox),
        lambda: pubsub.untrack("lobby", "ann", mailbox),
        lambda: pubsub.monitor(page.mailbox.address, mailbox),
        lambda: pubsub.demonitor(page.mailbox.address, mailbox),
    ):
        with pytest.raises(TypeError, match="mailbox is"):
            refused()
    assert page.rest(pubsub, "lobby") == []
    assert pubsub.list("lobby") == {}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_what_is_nested_too_deeply_to_be_read_is_a_gap(pubsub: PubSub, enter: Enter, caplog: Any) -> None:
    """Who publishes may have less on its stack than who reads it."""
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        text = json.dumps(nested(4000), separators=(",", ":"))
    finally:
        sys.setrecursionlimit(limit)
    pubsub._use().publish("lobby", text, "")
    assert page.rest(pubsub, "lobby") == [("gap", "lobby")]
    assert "Traceback" not in caplog.text


def test_unsubscribe(pubsub: PubSub, enter: Enter) -> None:
    (page, _), (other, _) = enter(), enter()
    for one in (page, other):
        pubsub.subscribe("lobby", one.mailbox)
        pubsub.subscribe("second", one.mailbox)
    pubsub.unsubscribe("lobby", page.mailbox)
    pubsub.unsubscribe("lobby", page.mailbox)
    pubsub.unsubscribe("never", page.mailbox)
    pubsub.broadcast("lobby", 1)
    assert other.rest(pubsub, "lobby") == [1]
    assert page.rest(pubsub, "second") == []


def test_the_last_one_may_come_back(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    for number in range(20):
        pubsub.subscribe("lobby", page.mailbox)
        pubsub.broadcast("lobby", number)
        page.wait_for(number + 1)
        pubsub.unsubscribe("lobby", page.mailbox)
        pubsub.broadcast("lobby", "not for anybody")
    pubsub.subscribe("lobby", page.mailbox)
    assert page.rest(pubsub, "lobby") == list(range(20))


def test_to_subscribe_again_replaces(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox)
    pubsub.subscribe("lobby", page.mailbox, ids=True)
    id_ = pubsub.broadcast("lobby", "once")
    assert page.rest(pubsub, "lobby") == [("message", "lobby", id_, "once")]


def test_push_goes_past_handle_info(pubsub: PubSub, enter: Enter) -> None:
    (page, client), (other, second) = enter(), enter()
    pubsub.subscribe("lobby", page.mailbox, push=True)
    pubsub.subscribe("lobby", other.mailbox, push=True, ids=True)
    message = {"text": "ü\n", "list": [1, 2]}
    id_ = pubsub.broadcast("lobby", message)
    assert client.receive() == '{"text":"ü\\n","list":[1,2]}'
    assert json.loads(second.receive()) == ["message", "lobby", id_, message]
    assert page.mail == other.mail == []


def test_push_is_encoded_once_for_all(pubsub: PubSub, enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    from websock_gevent import mailbox, websock

    pages = [enter() for _ in range(5)]
    for page, _ in pages:
        pubsub.subscribe("lobby", page.mailbox, push=True)
    encoded: list[Any] = []

    def counting(messages: Any, deflater: Any = None) -> list[bytes]:
        encoded.append(messages)
        return websock.encode(messages, deflater)

    monkeypatch.setattr(mailbox, "encode", counting)
    pubsub.broadcast("lobby", "one frame")
    for _, client in pages:
        assert client.receive() == '"one frame"'
    assert encoded == ['"one frame"']


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("ids", [True, False])
def test_push_is_compressed(pubsub: PubSub, takeover: bool, ids: bool) -> None:
    """Whether all connections share the frame, or each has a context of its own."""
    message = "some text, some text, some text, " * 50
    first = pubsub.broadcast("lobby", message)
    clients = []
    for _ in range(3):
        page = Page()
        compress = Deflate(server_no_context_takeover=not takeover)
        options = {"timeout": None, "ping_interval": None, "compress": compress}
        client = connect(application(page, **options), compress=True, timeout=DEADLINE)
        clients.append(client)
        client.ping()
        pubsub.subscribe("lobby", page.mailbox, push=True, ids=ids, since=OLDEST)
    second = pubsub.broadcast("lobby", message)
    for client in clients:
        received = [json.loads(client.receive()) for _ in range(2)]
        assert received == ([["message", "lobby", id_, message] for id_ in (first, second)] if ids else [message] * 2)
        client.abort()


def test_all_subscribers_of_a_process_share_the_object(pubsub: PubSub, enter: Enter) -> None:
    (page, _), (other, _) = enter(), enter()
    for one in (page, other):
        pubsub.subscribe("lobby", one.mailbox)
    message = {"text": "hello"}
    pubsub.broadcast("lobby", message)
    (one_got,), (other_got,) = page.wait_for(1), other.wait_for(1)
    assert one_got is other_got
    assert one_got is not message


def test_broadcast_from(pubsub: PubSub, enter: Enter) -> None:
    (page, client), (other, _) = enter(), enter()
    pubsub.subscribe("lobby", page.mailbox)
    pubsub.subscribe("lobby", other.mailbox)
    assert pubsub.broadcast_from("lobby", "from a page", page.mailbox)
    assert other.rest(pubsub, "lobby") == ["from a page"]
    assert page.rest(pubsub, "lobby") == []
    pubsub.subscribe("pushed", page.mailbox, push=True)
    pubsub.broadcast_from("pushed", 1, page.mailbox)
    pubsub.broadcast("pushed", 2)
    assert client.receive() == "2"


def test_one_order_for_all_and_nothing_lost_between_threads(pubsub: PubSub, enter: Enter) -> None:
    pages = [enter()[0] for _ in range(3)]
    for page in pages:
        pubsub.subscribe("lobby", page.mailbox)

    def publish(name: str) -> None:
        for number in range(200):
            pubsub.broadcast("lobby", [name, number])

    pool = gevent.get_hub().threadpool
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns at the most awkward moments
    try:
        publishers = [pool.spawn(publish, name) for name in "abc"] + [gevent.spawn(publish, "d")]
        gevent.joinall(publishers, timeout=DEADLINE, raise_error=True)
    finally:
        sys.setswitchinterval(interval)
    mails = [page.wait_for(800) for page in pages]
    assert mails[0] == mails[1] == mails[2]
    for name in "abcd":
        assert [number for one, number in mails[0] if one == name] == list(range(200))


def test_subscribe_from_a_thread(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    in_thread(pubsub.subscribe, "lobby", page.mailbox)
    in_thread(pubsub.broadcast, "lobby", 1)
    assert page.rest(pubsub, "lobby") == [1]


# Replays.


def test_since_replays_what_was_missed(pubsub: PubSub, enter: Enter) -> None:
    ids = [pubsub.broadcast("lobby", number) for number in range(5)]
    pubsub.broadcast("elsewhere", "not this")
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox, since=ids[1])
    assert page.rest(pubsub, "lobby") == [2, 3, 4]


def test_since_with_ids_and_push(pubsub: PubSub, enter: Enter) -> None:
    first, second = pubsub.broadcast("lobby", "one"), pubsub.broadcast("lobby", "two")
    page, client = enter()
    pubsub.subscribe("lobby", page.mailbox, since=first, ids=True, push=True)
    assert json.loads(client.receive()) == ["message", "lobby", second, "two"]


def test_since_the_last_one_replays_nothing(pubsub: PubSub, enter: Enter) -> None:
    last = pubsub.broadcast("lobby", 1)
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox, since=last)
    assert page.rest(pubsub, "lobby") == []


def test_since_the_oldest(pubsub: PubSub, make: Make, enter: Enter) -> None:
    (page, _), (other, _) = enter(), enter()
    pubsub.subscribe("lobby", page.mailbox, since=OLDEST)
    pubsub.broadcast("lobby", 1)
    pubsub.broadcast("lobby", 2)
    pubsub.subscribe("lobby", other.mailbox, since=OLDEST)
    assert page.rest(pubsub, "lobby") == [1, 2]
    assert other.mail[:2] == [1, 2]


def test_a_gap_when_it_is_not_kept_any_more(make: Make, enter: Enter) -> None:
    pubsub = make(keep=3)
    ids = [pubsub.broadcast("lobby", number) for number in range(6)]
    (page, _), (other, _), (third, _) = enter(), enter(), enter()
    pubsub.subscribe("lobby", page.mailbox, since=ids[1])  # 2 is missing
    pubsub.subscribe("lobby", other.mailbox, since=ids[2])  # itself not kept, but all behind it is
    pubsub.subscribe("lobby", third.mailbox, since=ids[1], push=True)
    assert page.wait_for(4) == [("gap", "lobby"), 3, 4, 5]
    assert other.wait_for(3) == [3, 4, 5]
    assert third.wait_for(1) == [("gap", "lobby")]


def test_a_gap_is_told_by_a_signal(make: Make, enter: Enter) -> None:
    pubsub = make(keep=1)
    told: list[tuple[str, PubsubGap]] = []

    def receive(sender: str, event: PubsubGap) -> None:
        told.append((sender, event))
        gevent.sleep(0)  # it holds nobody up, and no lock either

    first = pubsub.broadcast("lobby", 1)
    pubsub.broadcast("lobby", 2)
    second = pubsub.broadcast("lobby", 3)
    (page, _), (other, _) = enter(), enter()
    pubsub_gap.connect(receive)
    pubsub.subscribe("lobby", page.mailbox, since=first)
    pubsub.subscribe("lobby", other.mailbox, since=second)
    assert page.wait_for(2) == [("gap", "lobby"), 3]
    pubsub_gap.disconnect(receive)
    assert told == [("lobby", PubsubGap("lobby", 1))]


@pytest.mark.parametrize(
    "since",
    [
        "nonsense",
        "7-7",
        "",
        "1-1; drop",
        "99999999999999-1",
        "0-1",
        "-",
        "9" * 20 + "-1",
        "1-" + "9" * 20,
        "1" * 30 + "-1",
    ],
)
def test_an_id_that_is_none_is_a_gap(pubsub: PubSub, enter: Enter, since: str) -> None:
    """It comes from the client, who may send anything."""
    pubsub.broadcast("lobby", "kept")
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox, since=since)
    mail = page.rest(pubsub, "lobby")
    assert mail in ([("gap", "lobby")], [("gap", "lobby"), "kept"])


def test_since_is_an_id(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    with pytest.raises(TypeError, match="since"):
        pubsub.subscribe("lobby", page.mailbox, since=7)  # type: ignore[arg-type]


def test_what_is_kept_is_dropped_with_age(make: Make, enter: Enter) -> None:
    pubsub = make(age=0.05)
    first = pubsub.broadcast("lobby", "old")
    gevent.sleep(0.06)  # the one thing to wait for is time itself
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox, since=first)
    assert page.wait_for(1) == [("gap", "lobby")]
    other, _ = enter()
    pubsub.subscribe("lobby", other.mailbox, since=OLDEST)
    assert other.rest(pubsub, "lobby") == []


def test_between_replay_and_live_nothing_is_missed_or_doubled(pubsub: PubSub, enter: Enter) -> None:
    first = pubsub.broadcast("lobby", 0)
    go = threading.Semaphore(0)

    def publish() -> None:
        for number in range(1, 801):
            if number % 40 == 1:
                assert go.acquire(timeout=DEADLINE)
            pubsub.broadcast("lobby", number)

    publisher = gevent.get_hub().threadpool.spawn(publish)
    pages = []
    for _ in range(20):
        page, _ = enter()
        go.release()
        pubsub.subscribe("lobby", page.mailbox, since=first)
        pages.append(page)
    publisher.get(timeout=DEADLINE)
    for page in pages:
        assert page.wait_for(800) == list(range(1, 801))


# Addresses.


def test_send(pubsub: PubSub, enter: Enter) -> None:
    (page, client), (other, _) = enter(), enter()
    assert page.mailbox.address == page.mailbox.address != other.mailbox.address
    assert pubsub.send(page.mailbox.address, {"for": ["you"]})
    assert page.wait_for(1) == [{"for": ["you"]}]
    address = page.mailbox.address
    client.abort()
    assert page.wait()
    assert not pubsub.send(address, "too late")
    for nobody in ("nobody", "1.2.3", f"{address}0", ".", address.partition(".")[0]):
        assert not pubsub.send(nobody, "to nobody")


def test_monitor(pubsub: PubSub, enter: Enter) -> None:
    (page, _), (other, client) = enter(), enter()
    address = other.mailbox.address
    pubsub.monitor(address, page.mailbox)
    pubsub.monitor(address, page.mailbox)
    client.close()
    assert page.wait_for(1) == [("down", address, "remote")]
    pubsub.monitor(address, page.mailbox)
    assert page.wait_for(2)[1] == ("down", address, ("error", "no such connection"))


def test_monitor_tells_errors_as_text(pubsub: PubSub, enter: Enter) -> None:
    class Failing(Open):
        def handle_in(self, message: Any, state: Any) -> Any:
            raise LookupError("no such room \ud800")

    page, _ = enter()
    handler = Failing()
    client = open_client(handler)
    client.ping()
    pubsub.monitor(handler.mailbox.address, page.mailbox)
    client.send("go")
    client.wait_closed()
    assert page.wait_for(1) == [("down", handler.mailbox.address, ("error", "LookupError: no such room ?"))]


def test_demonitor(pubsub: PubSub, enter: Enter) -> None:
    (page, _), (other, client) = enter(), enter()
    pubsub.subscribe("lobby", page.mailbox)
    pubsub.monitor(other.mailbox.address, page.mailbox)
    pubsub.demonitor(other.mailbox.address, page.mailbox)
    client.close()
    assert page.rest(pubsub, "lobby") == []


# Presence.


def test_presence(pubsub: PubSub, enter: Enter) -> None:
    (page, _), (ann, client), (bob, _) = enter(), enter(), enter()
    pubsub.subscribe("lobby", page.mailbox)
    pubsub.track("lobby", "ann", {"page": 1}, ann.mailbox)
    pubsub.track("lobby", "bob", None, bob.mailbox)
    pubsub.track("lobby", "ann", {"page": 2}, bob.mailbox)
    pubsub.track("elsewhere", "ann", 3, ann.mailbox)
    present = pubsub.list("lobby")
    assert sorted(present) == ["ann", "bob"]
    assert sorted(present["ann"], key=str) == [{"page": 1}, {"page": 2}]
    assert present["bob"] == [None]
    pubsub.untrack("lobby", "bob", bob.mailbox)
    pubsub.untrack("lobby", "bob", bob.mailbox)
    pubsub.untrack("lobby", "nobody", bob.mailbox)
    client.close()
    assert page.wait_for(5) == [
        ("join", "lobby", "ann", {"page": 1}),
        ("join", "lobby", "bob", None),
        ("join", "lobby", "ann", {"page": 2}),
        ("leave", "lobby", "bob", None),
        ("leave", "lobby", "ann", {"page": 1}),
    ]
    assert pubsub.list("lobby") == {"ann": [{"page": 2}]}
    assert pubsub.list("elsewhere") == {}


def test_to_track_again_changes_the_meta(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    pubsub.subscribe("lobby", page.mailbox)
    for meta in ("here", "here", "away"):
        pubsub.track("lobby", "ann", meta, page.mailbox)
    assert page.rest(pubsub, "lobby") == [
        ("join", "lobby", "ann", "here"),
        ("join", "lobby", "ann", "away"),
        ("leave", "lobby", "ann", "here"),
    ]
    assert pubsub.list("lobby") == {"ann": ["away"]}


def test_joins_and_leaves_come_in_the_order_in_which_they_happened(pubsub: PubSub, enter: Enter) -> None:
    """Whichever threads they happen in."""
    (page, _), (ann, _) = enter(), enter()
    pubsub.subscribe("lobby", page.mailbox)

    def come_and_go() -> None:
        for _ in range(100):
            pubsub.track("lobby", "ann", None, ann.mailbox)
            pubsub.untrack("lobby", "ann", ann.mailbox)

    pool = gevent.get_hub().threadpool
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns at the most awkward moments
    try:
        gevent.joinall([pool.spawn(come_and_go) for _ in range(4)], timeout=DEADLINE, raise_error=True)
    finally:
        sys.setswitchinterval(interval)
    assert pubsub.list("lobby") == {}
    kinds = [kind for kind, *_ in page.rest(pubsub, "lobby")]
    assert kinds == ["join", "leave"] * (len(kinds) // 2)


def test_presence_is_part_of_the_topic(pubsub: PubSub, enter: Enter) -> None:
    """Joins and leaves have their place among the messages, also in a replay."""
    (page, client), (ann, _), (late, _), (plain, second) = enter(), enter(), enter(), enter()
    pubsub.subscribe("lobby", page.mailbox, push=True, ids=True)
    pubsub.subscribe("lobby", plain.mailbox, push=True)
    first = pubsub.broadcast("lobby", "before")
    pubsub.track("lobby", "ann", {"page": [1]}, ann.mailbox)
    last = pubsub.broadcast("lobby", "after")
    received = [json.loads(client.receive()) for _ in range(3)]
    join = received[1][2]
    assert received == [
        ["message", "lobby", first, "before"],
        ["join", "lobby", join, "ann", {"page": [1]}],
        ["message", "lobby", last, "after"],
    ]
    assert [second.receive(), second.receive()] == ['"before"', '"after"']
    assert plain.wait_for(1) == [("join", "lobby", "ann", {"page": [1]})]
    pubsub.subscribe("lobby", late.mailbox, since=first, ids=True)
    assert late.wait_for(2) == [tuple(one) for one in received[1:]]
    pubsub.subscribe("lobby", page.mailbox, push=True, ids=True, since="unknown")
    assert json.loads(client.receive()) == ["gap", "lobby"]


@pytest.mark.parametrize("key", ["a b", "ann\n", "{}", '"', "ü"])
def test_a_key_is_any_text(pubsub: PubSub, enter: Enter, key: str) -> None:
    page, _ = enter()
    pubsub.track("lobby", key, 1, page.mailbox)
    assert pubsub.list("lobby") == {key: [1]}
    pubsub.untrack("lobby", key, page.mailbox)
    assert pubsub.list("lobby") == {}


def test_what_was_closed_may_be_used_again(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    for number in range(3):
        pubsub.subscribe("lobby", page.mailbox)
        pubsub.track("lobby", "ann", number, page.mailbox)
        pubsub.monitor(page.mailbox.address, page.mailbox)
        page.wait_for(number + 1)
        pubsub.close()
        assert pubsub.list("lobby") == {}
        pubsub.broadcast("lobby", "nobody listens")
    pubsub.close()
    pubsub.close()
    assert [meta for *_, meta in page.mail] == [0, 1, 2]


# What dies with a connection.


def held(pubsub: PubSub) -> int:
    presence: Any = pubsub._use().presence  # type: ignore[attr-defined]
    return sum(map(len, (pubsub._registry, pubsub._monitors, presence, pubsub._holders, pubsub._targets)))


def mailboxes() -> int:
    gc.collect()
    return sum(type(thing) is Mailbox for thing in gc.get_objects())


def test_nothing_is_left_of_a_thousand_connections(pubsub: PubSub, enter: Enter) -> None:
    before = mailboxes()
    page, _ = enter()
    address = page.mailbox.address

    class Visitor(WebSock[int]):
        def init(self, state: int) -> Any:
            pubsub.subscribe("lobby")
            pubsub.subscribe(f"room {state % 50}", push=True)
            pubsub.track("lobby", f"visitor {state}", state)
            pubsub.monitor(address)
            return "ok", state

        def handle_in(self, message: Any, state: int) -> Any:
            return "push", message, state

    for start in range(0, 1000, 50):
        clients = [open_client(Visitor, number, max_mailbox=100_000) for number in range(start, start + 50)]
        for client in clients:
            client.send("are you there")
        for client in clients:
            while client.receive() != "are you there":
                pass
        until(lambda: len(pubsub.list("lobby")) == 50)  # those before these leave when their ends are noticed
        for client in clients:
            client.abort()
    pubsub.subscribe("lobby", page.mailbox)
    page.rest(pubsub, "lobby")
    with gevent.Timeout(DEADLINE):
        while pubsub.list("lobby"):
            page.rest(pubsub, "lobby")
    assert held(pubsub) == 2 + 1 + 1, "the page holds its subscription, and is watched"
    pubsub.unsubscribe("lobby", page.mailbox)
    assert len(pubsub._registry) == len(pubsub._monitors) == 0
    assert mailboxes() - before < 10


def test_who_comes_and_goes_is_waited_for_once(pubsub: PubSub, enter: Enter) -> None:
    page, _ = enter()
    for _ in range(10):
        pubsub.subscribe("lobby", page.mailbox)
        pubsub.unsubscribe("lobby", page.mailbox)
    assert len(page.mailbox._at_end) == 1


def test_a_mailbox_that_has_ended_holds_nothing(pubsub: PubSub, enter: Enter) -> None:
    (page, client), (other, _) = enter(), enter()
    address = page.mailbox.address
    client.abort()
    assert page.wait()
    pubsub.subscribe("lobby", page.mailbox)
    pubsub.track("lobby", "ann", None, page.mailbox)
    pubsub.monitor(other.mailbox.address, page.mailbox)
    assert page.mailbox.address == address
    pubsub.subscribe("lobby", other.mailbox)
    other.rest(pubsub, "lobby")
    assert pubsub.list("lobby") == {}
    assert held(pubsub) == 4


def test_subscriptions_last_as_long_as_their_connection(pubsub: PubSub) -> None:
    """Whatever ends it, and while its ``terminate`` takes its time: the end is behind that."""
    release = gevent.event.Event()

    class Slow(Open):
        def init(self, state: Any) -> Any:
            pubsub.track("lobby", "ann", 1, current())
            return super().init(state)

        def terminate(self, reason: Any, state: Any) -> None:
            assert release.wait(DEADLINE)
            super().terminate(reason, state)

    handler = Slow()
    client = open_client(handler)
    client.ping()
    client.socket.close()
    assert pubsub.list("lobby") == {"ann": [1]}
    release.set()
    handler.wait()
    with gevent.Timeout(DEADLINE):
        while pubsub.list("lobby"):
            gevent.sleep()
    assert held(pubsub) == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("keep", 0),
        ("keep", 1.5),
        ("age", 0),
        ("timeout", -1),
        ("lifetime", float("inf")),
        ("buffer", -1),
        ("prefix", 7),
    ],
)
def test_settings_are_checked_by_name(setting: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=setting):
        PubSub(**{setting: value})


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", 7, "amqp://x", "rediss:/:secret@host/"])
def test_an_address_is_checked(url: Any) -> None:
    with pytest.raises(ValueError, match="redis://") as refused:
        PubSub(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://localhost?tiemout=1", "tiemout"),
        ("redis://localhost?db=first", "db"),
        ("redis://:secret@localhost:port", "[Pp]ort"),
        ("rediss://localhost?ssl_cert_reqs=perhaps", "perhaps"),
        ("unix:///tmp/x?port=1", "port"),
    ],
)
def test_what_is_wrong_in_an_address_is_named(url: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        PubSub(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:1/2?x=y", "redis://host:1/2"),
        ("redis://user:p@ss/wo:rd@host:1", "redis://host:1"),
        ("unix://u:p@/run/redis.sock?db=3", "unix:///run/redis.sock"),
        ("amqp:u@host", "host"),
    ],
)
def test_an_address_is_shown_without_secrets(url: str, expected: str) -> None:
    assert shown(url) == expected
