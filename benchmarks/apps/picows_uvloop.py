"""Echo on picows with uvloop: Cython frames on libuv, the fastest Python server we know, as an upper mark."""

from __future__ import annotations

import logging
import sys

import picows  # type: ignore[import-not-found,unused-ignore]
import uvloop  # type: ignore[import-not-found,unused-ignore]


class Echo(picows.WSListener):  # type: ignore[misc,unused-ignore]
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY):
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


async def main(port: int) -> None:
    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", port, max_frame_size=2**25)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.getLogger("picows").setLevel(logging.ERROR)  # it warns at every full write buffer
    uvloop.run(main(int(sys.argv[1])))
