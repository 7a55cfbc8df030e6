"""Reads a stream and says how it goes: `kvs-reader`, or `python -m kvs_client.reader`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from . import __version__
from ._native import FrameSourceError
from .metrics import MetricsServer
from .sources import FrameSource, create_frame_source

_WINDOW = "kvs-reader"


def main(arguments: Optional[List[str]] = None) -> int:
    options = _options(arguments)
    show: Any = None
    if not options.no_display:
        try:
            show = importlib.import_module("cv2")
        except ImportError:
            print("kvs-reader: no cv2 to display frames with: install opencv-python, or give --no-display", file=sys.stderr)
            return 2
    # As Ctrl-C, so that a service manager gets the report, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        source = create_frame_source(
            options.camera_id,
            options.stream_name,
            {"mode": options.mode},
            options.region,
            target_fps=options.target_fps,
            endpoint_url=options.endpoint_url,
        )
    except ValueError as error:
        print(f"kvs-reader: {error}", file=sys.stderr)
        return 2
    try:
        server = MetricsServer([source], options.metrics_port)
    except (OSError, ValueError) as error:
        print(f"kvs-reader: --metrics-port: {error}", file=sys.stderr)
        return 2
    with server:
        print(f"metrics at {server.url}", flush=True)
        return _Reading(source, options, show).run()


def _options(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kvs-reader", description="Reads frames of a Kinesis video stream.")
    parser.add_argument("--stream-name", required=True, help="the Kinesis video stream")
    parser.add_argument("--region", default="us-east-1", help="default: %(default)s")
    parser.add_argument("--camera-id", default="demo-camera", help="label of the metrics; default: %(default)s")
    parser.add_argument("--mode", type=str.upper, choices=("HLS", "GETMEDIA"), default="HLS", help="default: %(default)s")
    parser.add_argument("--max-frames", type=_positive(int), help="end after so many; default: never")
    parser.add_argument("--target-fps", type=_positive(float), help="frames a second, at most; default: all")
    parser.add_argument("--no-display", action="store_true", help="no window (which needs opencv-python)")
    parser.add_argument("--metrics-port", type=int, default=9090, help="0: any that is free; default: %(default)s")
    parser.add_argument("--stats-seconds", type=_positive(float), default=10.0, help="default: %(default)s")
    parser.add_argument("--endpoint-url", help="of another server, such as kvs-local")
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(arguments)


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"found {text}, expected more than 0")
        return value

    # What argparse says was expected.
    parse.__name__ = getattr(kind, "__name__", "number")
    return parse


class _Reading:
    def __init__(self, source: FrameSource, options: argparse.Namespace, show: Any) -> None:
        self.source, self.options, self.show = source, options, show
        self.frames = 0
        self.size = "no size yet"
        self.began = self.told = time.monotonic()
        self.told_frames = 0

    def run(self) -> int:
        status = 0
        try:
            with self.source:
                self._loop()
        except KeyboardInterrupt:
            print("\nstopped", flush=True)
        except FrameSourceError as error:
            print(f"kvs-reader: {error}", file=sys.stderr, flush=True)
            status = 1
        # A second one does not cut the report short.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if self.show:
            self.show.destroyAllWindows()
        self._report()
        return status

    def _loop(self) -> None:
        while self.options.max_frames is None or self.frames < self.options.max_frames:
            result = self.source.read_frame()
            if result.success:
                self.frames += 1
                self.size = f"{result.frame.shape[1]}x{result.frame.shape[0]}"
                if self.show and not self._display(result.frame, result.timestamp):
                    return
            now = time.monotonic()
            if now - self.told >= self.options.stats_seconds:
                self._stats(now)

    def _display(self, frame: Any, timestamp: float) -> bool:
        text = f"{self.options.camera_id}  {self.frames}  {time.strftime('%H:%M:%S', time.localtime(timestamp))}"
        self.show.putText(frame, text, (10, 30), self.show.FONT_HERSHEY_SIMPLEX, 0.7, (0, 255, 0), 2)
        self.show.imshow(_WINDOW, frame)
        return bool(self.show.waitKey(1) & 0xFF != ord("q"))

    def _stats(self, now: float) -> None:
        metrics = self.source.get_metrics()
        rate = (self.frames - self.told_frames) / (now - self.told)
        print(
            f"{self.source.get_connection_state()}, {'healthy' if self.source.is_healthy() else 'not healthy'}: "
            f"{self.frames} frames of {self.size}, {rate:.1f} a second, latency {_latency(metrics)}, "
            f"{metrics['reconnects_total']} reconnects, {metrics['read_errors_total']} read errors, "
            f"{metrics['decode_errors']} decode errors",
            flush=True,
        )
        error = self.source.last_error()
        if error:
            print(f"  last error: {error}", flush=True)
        self.told, self.told_frames = now, self.frames

    def _report(self) -> None:
        seconds = time.monotonic() - self.began
        metrics = self.source.get_metrics()
        print("final report")
        print(f"  stream               {self.options.stream_name} ({self.options.mode}, {self.options.region})")
        print(f"  time                 {seconds:.1f} s")
        print(f"  frames               {self.frames} of {self.size}, {self.frames / max(seconds, 0.001):.1f} a second")
        for name in (
            "fragments_processed",
            "bytes_received",
            "frames_dropped",
            "reconnects_total",
            "url_refreshes_total",
            "read_errors_total",
            "parse_errors",
            "decode_errors",
        ):
            print(f"  {name:<20} {metrics[name]}")
        print(f"  {'latency':<20} {_latency(metrics)}", flush=True)


def _latency(metrics: Dict[str, Any]) -> str:
    return f"{metrics['latency_ms']} ms" if metrics["frames_read"] else "unknown"


if __name__ == "__main__":
    sys.exit(main())
