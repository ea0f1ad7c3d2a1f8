"""A deploy with two thousand clients connected: each is told, each ends once, each is back at once."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from time import monotonic
from typing import NamedTuple

from serving import DEADLINE, Server, gunicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

CLIENTS = 2000


class Everybody:
    """Tells when so many have come."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self.here = asyncio.Event()

    def one_more(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.here.set()


class Return(NamedTuple):
    """How one client lived through it."""

    code: int
    refused: float
    worker: int


async def open_one(server: Server, key: str) -> ClientConnection:
    url = server.url(f"/ending?key={key}", "ws")
    return await connect(url, compression=None, proxy=None, open_timeout=DEADLINE, ping_interval=None)


async def live(server: Server, key: str, ready: asyncio.Semaphore, everybody: Everybody) -> Return:
    """Connect, stay until told to go, come back."""
    async with ready:
        websocket = await open_one(server, key)
    everybody.one_more()
    await everybody.here.wait()
    try:
        await websocket.recv()
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else 1006
    began = monotonic()
    while True:
        refused = monotonic() - began
        try:
            again = await open_one(server, f"again-{key}")
            break
        except (OSError, InvalidStatus):
            await asyncio.sleep(0.05)
    await again.send("pid")
    worker = int(await again.recv())
    await again.close()
    return Return(code, refused, worker)


async def deploy(server: Server, keys: list[str]) -> list[Return]:
    """Connect all, then reload."""
    ready, everybody = asyncio.Semaphore(50), Everybody(len(keys))
    tasks = [asyncio.create_task(live(server, key, ready, everybody)) for key in keys]
    await everybody.here.wait()
    os.kill(server.pid, signal.SIGHUP)
    return await asyncio.gather(*tasks)


def test_a_deploy_with_two_thousand_clients() -> None:
    options = ["--workers", "2", "--worker-connections", "4000", "--graceful-timeout", "30"]
    options += ["--keep-alive", "30"]  # seconds for a first request, too: two thousand clients in one process are slow
    keys = [f"client-{number}" for number in range(CLIENTS)]
    with gunicorn("served:app", *options) as server:
        server.wait_for_log(r"(?s)Booting worker.*Booting worker")
        old = set(server.worker_pids)
        returns = asyncio.run(deploy(server, keys))
        for pid in old:
            server.wait_for_log(rf"Worker exiting \(pid: {pid}\)")
        log = server.log()
    assert Counter(back.code for back in returns) == {1012: CLIENTS}
    ended = Counter(re.findall(r"^ended (client-\d+) shutdown$", log, re.MULTILINE))
    assert ended == dict.fromkeys(keys, 1)
    assert {back.worker for back in returns} <= set(server.worker_pids) - old
    print(f"longest refusal {max(back.refused for back in returns):.3f} s")
    assert max(back.refused for back in returns) <= 1.0
    assert "Traceback" not in log and "cut off" not in log
