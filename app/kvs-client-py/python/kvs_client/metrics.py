"""The metrics of sources for Prometheus."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterable, Protocol


class HasMetrics(Protocol):
    def prometheus(self) -> str: ...


class MetricsServer:
    """Serves `/metrics` of some sources by a thread of its own, until it is closed. Port 0: any that is free."""

    def __init__(self, sources: Iterable[HasMetrics], port: int = 9090, host: str = "127.0.0.1") -> None:
        self.sources = list(sources)
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404, "there is /metrics")
                    return
                body = exposition(served.sources).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://{host}:{self.port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, name="kvs-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "MetricsServer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def exposition(sources: Iterable[HasMetrics]) -> str:
    """The text of all sources, each name's type said once, as the format asks for."""
    types, samples = {}, {}
    for source in sources:
        for line in source.prometheus().splitlines():
            if line.startswith("# TYPE "):
                name = line.split()[2]
                types[name] = line
            elif line:
                samples.setdefault(line.partition("{")[0], []).append(line)
    return "".join("\n".join([types[name], *lines]) + "\n" for name, lines in samples.items())
