from typing import Any

class Client:
    address: Any
    ws: Any
    def __init__(self, address: Any, ws: Any) -> None: ...
