"""Echo and fan-out on picows with uvloop: Cython frames on libuv, the fastest Python server we know."""

from __future__ import annotations

import asyncio
import logging
import sys

import picows  # type: ignore[import-not-found,unused-ignore]
import uvloop  # type: ignore[import-not-found,unused-ignore]

DATA = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION)
subscribers: set[picows.WSTransport] = set()


class Echo(picows.WSListener):  # type: ignore[misc,unused-ignore]
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type in DATA:
            self.message(transport, frame)
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def message(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)


class Blocking(Echo):
    def message(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if payload[16:17] == b"!":
            asyncio.get_running_loop().call_later(0.01, transport.send, frame.msg_type, payload)
        else:
            transport.send(frame.msg_type, payload)


class Subscriber(Echo):
    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        subscribers.add(transport)
        transport.send(picows.WSMsgType.TEXT, b"ready")

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        subscribers.discard(transport)


class Publisher(Echo):
    def message(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        for subscriber in subscribers:
            subscriber.send(frame.msg_type, payload)


LISTENERS = {b"/blocking": Blocking, b"/subscribe": Subscriber, b"/publish": Publisher}


async def main(port: int) -> None:
    def listener(request: picows.WSUpgradeRequest) -> picows.WSListener:
        return LISTENERS.get(request.path, Echo)()

    server = await picows.ws_create_server(listener, "127.0.0.1", port, max_frame_size=2**25, backlog=2048)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.getLogger("picows").setLevel(logging.ERROR)  # it warns at every full write buffer
    uvloop.run(main(int(sys.argv[1])))
