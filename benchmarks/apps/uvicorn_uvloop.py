"""Echo and fan-out as a bare ASGI application, on uvicorn with uvloop and its newest WebSocket protocol."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvicorn

subscribers: set[Any] = set()


async def echo(receive: Any, send: Any, blocking: bool) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        text = event.get("text")
        if blocking and text is not None and text[16] == "!":
            await asyncio.sleep(0.01)
        await send({"type": "websocket.send", "text": text, "bytes": event.get("bytes")})


async def publish(receive: Any) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        message = {"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")}
        for send in tuple(subscribers):
            await send(message)


async def subscribe(receive: Any, send: Any) -> None:
    subscribers.add(send)
    await send({"type": "websocket.send", "text": "ready"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
    subscribers.discard(send)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/subscribe":
        await subscribe(receive, send)
    elif scope["path"] == "/publish":
        await publish(receive)
    else:
        await echo(receive, send, scope["path"] == "/blocking")


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        ws="websockets-sansio",
        ws_max_size=2**25,
        lifespan="off",
        log_level="error",
    )
