"""Many subscribers, workers on two "hosts", numbered messages, and everything that can go wrong; all of it counted.

Two gunicorn masters stand for two hosts; the second one's way to Redis can be cut. The clients are a process of their
own (``apps/chaos_clients.py``), and so is each publisher.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from redis_servers import RedisServer
from relay import Relay
from serving import APPS, ROOT, Program, Server, gunicorn

from websock_gevent.pubsub import PubSub, PubSubError

__all__ = ["Chaos", "chaos"]


@dataclass
class Chaos:
    """A running cluster with its clients and publishers.

    Attributes:
        report: What happened, line by line.
    """

    redis: RedisServer
    folder: Path
    relay: Relay
    hosts: list[Server]
    clients: Program
    publishers: list[Program]
    count: int
    settings: dict[str, Any]
    report: list[str] = field(default_factory=list)

    def ask(self, line: str = "?") -> Any:
        """Have the clients report."""
        since = self.clients.position()
        self.clients.write(line)
        return json.loads(self.clients.wait_for_log(r'^\{"report".*$', timeout=120, since=since).group())

    def fault(self, name: str, happen: Callable[[], object]) -> None:
        """Let something go wrong, and wait until everybody is there again and presence is right."""
        before = self.ask()["report"]
        began = time.monotonic()
        happen()
        over = time.monotonic()
        fresh = self.ask("fresh")
        assert not fresh["late"], f"{name}: {fresh['behind']} get nothing any more"
        self._until_all_are_back(name)
        right = self.until_presence_is_right(name)
        after = self.ask()["report"]
        differences = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
        counted = ", ".join(f"{value} {key}" for key, value in sorted(differences.items()))
        self.report.append(f"{name} ({over - began:.1f} s): {counted}; presence right {right - over:.1f} s later")

    def _until_all_are_back(self, name: str) -> None:
        deadline = time.monotonic() + 60
        while (answer := self.ask())["pids"].get("0", 0):
            assert time.monotonic() < deadline, f"{name}: {answer['pids']} are where they are"
            gevent.sleep(0.2)

    def until_presence_is_right(self, name: str) -> float:
        """Wait until exactly the clients are present, each once. Return when that was."""
        pubsub = PubSub(self.redis.url, **self.settings)
        deadline = time.monotonic() + 60
        present: dict[str, list[Any]] = {}
        while True:
            try:
                present = pubsub.list("people")
            except PubSubError:
                present = {}
            if len(present) == self.count and all(len(metas) == 1 for metas in present.values()):
                pubsub.close()
                return time.monotonic()
            counts = len(present), sum(map(len, present.values()))
            assert time.monotonic() < deadline, f"{name}: {counts} of {self.count} are present"
            gevent.sleep(0.1)

    def finish(self) -> Any:
        """End the publishers, wait until everybody has seen all, and return the clients' report."""
        ends = {}
        for publisher in self.publishers:
            publisher.close_stdin()
            line = publisher.wait_for_log(r'^\{"ended".*$', timeout=130).group()
            said = json.loads(line)
            ends[said["ended"]] = said["numbers"]
        published = sum(sum(numbers.values()) for numbers in ends.values())
        answer = self.ask(json.dumps(ends))
        counted = ", ".join(f"{value} {key}" for key, value in sorted(answer["report"].items()))
        self.report.append(f"in all: {published} published, {counted}; {answer['late']} have not seen the end")
        return answer

    # What can go wrong.

    def kill_a_worker(self) -> None:
        """A worker dies without a word."""
        os.kill(self.hosts[0].worker_pid, signal.SIGKILL)

    def restart_redis(self, seconds: float) -> None:
        """Redis ends in good order, and comes back with its data."""
        self.redis.stop()
        gevent.sleep(seconds)
        self.redis.start(*PERSISTENT)

    def crash_redis(self) -> None:
        """Redis dies and comes back without anything."""
        self.redis.kill()
        shutil.rmtree(self.folder / "appendonlydir")
        self.redis.start(*PERSISTENT)

    def freeze_redis(self, seconds: float) -> None:
        """Redis does nothing for a while."""
        self.redis.freeze()
        gevent.sleep(seconds)
        self.redis.thaw()

    def cut_the_link(self, seconds: float) -> None:
        """The second host does not reach Redis for a while."""
        self.relay.cut()
        gevent.sleep(seconds)
        self.relay.heal()

    def exceed_the_output_buffer(self) -> None:
        """A worker stands still while so much is published that Redis gives its connection up."""
        pid = self.ask()["topics"]["ballast"]
        client = self.redis.client()
        client.config_set("client-output-buffer-limit", "pubsub 200kb 0 0")
        position = len(self.redis.log())
        os.kill(pid, signal.SIGSTOP)
        try:
            pubsub = PubSub(self.redis.url, **self.settings)
            number = 0
            while "output buffer limits" not in self.redis.log()[position:]:
                number += 1
                assert number < 900, "Redis keeps the connection"
                pubsub.broadcast("ballast", {"by": "ballast", "number": number, "x": "x" * 50_000})
            pubsub.close()
        finally:
            os.kill(pid, signal.SIGCONT)


PERSISTENT = ("--appendonly", "yes", "--appendfsync", "everysec")


@contextmanager
def chaos(folder: Path, count: int, settings: dict[str, Any], rate: float, publishers: int = 2) -> Iterator[Chaos]:
    """Start everything.

    Args:
        folder: For Redis' data.
        count: Subscribers, on ten topics.
        settings: Of every PubSub.
        rate: Messages a second, of each publisher.
        publishers: How many.
    """
    topics = [f"topic{number}" for number in range(10)]
    environment = {"PUBSUB": json.dumps(settings)}
    path = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{APPS}"}
    redis = RedisServer(folder)
    redis.start(*PERSISTENT)
    with ExitStack() as stack:
        stack.callback(redis.stop)
        relay = stack.enter_context(Relay(redis.port))
        options = "-w", "2", "--preload", "--worker-connections", "2000"
        hosts = [
            stack.enter_context(gunicorn("chaotic:app", *options, env={**environment, "REDIS_URL": url}))
            for url in (redis.url, f"redis://127.0.0.1:{relay.port}")
        ]
        ports = [str(host.port) for host in hosts]
        names = ",".join([*topics, "ballast"])
        clients = Program([sys.executable, str(APPS / "chaos_clients.py"), str(count), names, *ports], stdin=True)
        stack.callback(clients.end)
        script = [sys.executable, str(APPS / "chaos_publisher.py"), redis.url]
        running = []
        for number in range(publishers):
            command = [*script, f"publisher{number}", str(rate), *topics]
            running.append(Program(command, stdin=True, env=path))
            stack.callback(running[-1].end)
        cluster = Chaos(redis, folder, relay, hosts, clients, running, count, settings)
        cluster.fault("start", lambda: None)
        yield cluster
