"""Many WebSocket clients, each of which counts what it is sent. Independent of the library under test.

usage: chaos_clients.py COUNT TOPICS PORT...

Each client listens to one topic, on one of the ports, and comes back when its connection is lost, with the id of the
last message it has. Of each publisher it must see every number once and in order, or a gap before those it does not
see. A line on stdin asks for a report. After the line ``fresh`` it comes when every client has got another message;
after one that says in JSON where the publishers ended, when every client has seen the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake


class Subscriber:
    """One client."""

    def __init__(self, number: int, topic: str, ports: list[str], counts: Counter[str]) -> None:
        self.name = f"client {number}"
        self.topic = topic
        self.pid = 0
        self.is_fresh = True
        self.seen: dict[str, int] = {}
        self._ports = ports
        self._last = ""
        self._excused: set[str] | None = None  # publishers that were heard since the last gap; None without a gap
        self._counts = counts

    async def run(self) -> None:
        while True:
            port = random.choice(self._ports)
            since = f"&since={self._last}" if self._last else ""
            url = f"ws://127.0.0.1:{port}/?topic={self.topic}&name={self.name.replace(' ', '%20')}{since}"
            try:
                async with connect(url, compression=None, open_timeout=10, close_timeout=1, max_size=None) as socket:
                    await self._listen(socket)
            except (OSError, ConnectionClosed, InvalidHandshake, EOFError):
                pass
            self.pid = 0
            self._counts["reconnections"] += 1
            await asyncio.sleep(random.uniform(0.1, 1.0))

    async def _listen(self, socket: Any) -> None:
        async for text in socket:
            kind, *rest = json.loads(text)
            if kind == "hello":
                self.pid = rest[0]
            elif kind == "gap":
                self._counts["gaps"] += 1
                self._excused = set()
            else:
                self._last = rest[1]
                self._take(rest[2]["by"], rest[2]["number"])

    def _take(self, publisher: str, number: int) -> None:
        self._counts["received"] += 1
        self.is_fresh = True
        before = self.seen.get(publisher, 0)
        if number <= before:
            self._counts["twice or late"] += 1
            return
        if number > before + 1:
            if self._excused is None or publisher in self._excused:
                self._counts["missing without a gap"] += number - before - 1
            else:
                self._counts["missing behind a gap"] += number - before - 1
        if self._excused is not None:
            self._excused.add(publisher)
        self.seen[publisher] = number


def behind(clients: list[Subscriber], ends: dict[str, dict[str, int]]) -> list[str]:
    """Name those who have not seen all there is."""
    return [
        f"{client.name} from {publisher}: {client.seen.get(publisher, 0)} of {numbers[client.topic]}"
        for client in clients
        for publisher, numbers in ends.items()
        if client.seen.get(publisher, 0) < numbers.get(client.topic, 0)
    ]


async def wait_for(clients: list[Subscriber], line: str) -> list[str]:
    """Wait for what a line asks for. Return who is late."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 60
    ends = json.loads(line) if line.startswith("{") else {}
    for client in clients:
        client.is_fresh = not line.startswith("fresh") or client.topic == "ballast"
    while late := behind(clients, ends) + [client.name for client in clients if not client.is_fresh]:
        if loop.time() > deadline:
            break
        await asyncio.sleep(0.05)
    return late


async def main() -> None:
    count, topics, *ports = sys.argv[1:]
    counts: Counter[str] = Counter()
    names = topics.split(",")
    clients = [Subscriber(number, names[number % len(names)], ports, counts) for number in range(int(count))]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        late = await wait_for(clients, line)
        pids = Counter(client.pid for client in clients)
        on = {client.topic: client.pid for client in clients}
        report = {"report": dict(counts), "pids": dict(pids), "topics": on, "behind": late[:5], "late": len(late)}
        print(json.dumps(report), flush=True)
    for task in tasks:
        task.cancel()


asyncio.run(main())
