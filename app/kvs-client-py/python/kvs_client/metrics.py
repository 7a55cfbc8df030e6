"""The metrics of sources for Prometheus."""

from __future__ import annotations

from typing import Iterable

from . import _native
from .sources import FrameSource


class MetricsServer:
    """Serves `/metrics` of some sources by a thread of its own, until it is closed. Port 0: any that is free."""

    def __init__(self, sources: Iterable[FrameSource], port: int = 9090, host: str = "127.0.0.1") -> None:
        if not 0 <= port < 1 << 16:
            raise ValueError(f"port is {port}, expected 0 to 65535")
        self._server = _native.MetricsServer([(one.camera_id, one._source) for one in sources], host, port)
        self.port = self._server.port
        self.url = f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> "MetricsServer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
