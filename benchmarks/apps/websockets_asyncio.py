"""Echo and fan-out on websockets' asyncio server."""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

subscribers: set[ServerConnection] = set()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def blocking(connection: ServerConnection) -> None:
    async for message in connection:
        if message[16] == "!":
            await asyncio.sleep(0.01)
        await connection.send(message)


async def subscribe(connection: ServerConnection) -> None:
    subscribers.add(connection)
    await connection.send("ready")
    await connection.wait_closed()
    subscribers.discard(connection)


async def publish(connection: ServerConnection) -> None:
    async for message in connection:
        broadcast(subscribers, message)


HANDLERS = {"/blocking": blocking, "/subscribe": subscribe, "/publish": publish}


async def handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    await HANDLERS.get(connection.request.path, echo)(connection)


async def main(port: int) -> None:
    async with serve(handle, "127.0.0.1", port, max_size=2**25, backlog=2048) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
