# gevent-websocket 0.10.1 has no types; these are of the parts that the library stands on.
