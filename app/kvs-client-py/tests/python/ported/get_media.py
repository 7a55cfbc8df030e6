"""Reads a stream as scripts for the switch between HLS and GetMedia do: only where it comes from has changed."""

import sys
from dataclasses import dataclass, field

from kvs_client import GetMediaStartSelectorType, KVSGetMediaFrameSource, create_frame_source


@dataclass
class Playback:
    mode: str
    retention_required: bool = False
    getmedia: dict = field(
        default_factory=lambda: {
            "start_selector": "NOW",
            "max_fragment_age_seconds": 30,
            "chunk_size": 65536,
            "reconnect_delay_seconds": 2,
            "max_reconnect_attempts": 10,
            "parser": {"type": "gstreamer"},
            "frame_queue": {"max_size": 100, "timeout_seconds": 1.0},
        }
    )


def read(frame_source, wanted):
    frames = 0
    with frame_source:
        while frames < wanted:
            success, frame = frame_source.read_frame()
            if success:
                assert frame.ndim == 3
                frames += 1
            metrics = frame_source.get_metrics()
            is_healthy = frame_source.is_healthy()
        assert is_healthy
        assert metrics["last_frame_timestamp"] > 0 and metrics["latency_ms"] >= 0
        for name in ("parse_errors", "decode_errors", "connection_resets"):
            assert metrics[name] == 0, (name, metrics)
        assert metrics["bytes_received"] > 0
    return frames


if __name__ == "__main__":
    for mode in ("HLS", "GETMEDIA"):
        source = create_frame_source(
            camera_id="cam-001", stream_name="live", playback_config=Playback(mode), region="us-west-2"
        )
        print(mode, type(source).__name__, read(source, int(sys.argv[1])))
    source = KVSGetMediaFrameSource(
        camera_id="cam-001",
        stream_name="live",
        region="us-west-2",
        start_selector_type=GetMediaStartSelectorType.EARLIEST,
    )
    print("EARLIEST", read(source, int(sys.argv[1])))
