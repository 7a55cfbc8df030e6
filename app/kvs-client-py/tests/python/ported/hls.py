"""Reads a stream by HLS as scripts for KVSHLSFrameSource do: only where it comes from has changed."""

import sys
import threading

from kvs_client import (
    KVSHLSFrameSource,
    FrameSourceError,
    KVSConnectionError,
    HLSStreamError,
)


def by_generator():
    source = KVSHLSFrameSource(
        camera_id="cam-1",
        stream_name="live",
        region="us-west-2",
        hls_session_seconds=300,
        url_refresh_margin=30,
        reconnect_delay=5,
        max_reconnect_delay=60,
        backoff_multiplier=2.0,
        max_consecutive_errors=10,
    )
    last = 0.0
    with source:
        for frame, timestamp in source.read_frames():
            assert timestamp > last
            last = timestamp
            metrics = source.get_metrics()
            if metrics["frames_total"] >= 40:
                assert source.is_healthy()
                assert source.get_connection_state() == "connected"
                print("generator", frame.shape, metrics["read_errors_total"], metrics["reconnects_total"])
                break


def by_hand():
    source = KVSHLSFrameSource(camera_id="cam-2", stream_name="live", region="us-west-2")
    source.start()
    frames = 0
    while frames < 40:
        frame_data = source.read_frame()
        if frame_data:
            frame, timestamp = frame_data
            frames += 1
    source.release()
    print("by hand", frames, source.get_connection_state())


def with_threads():
    def camera_worker(camera_id, stream_name):
        source = KVSHLSFrameSource(camera_id=camera_id, stream_name=stream_name, region="us-west-2")
        with source:
            for frame, timestamp in source.read_frames():
                print("thread", camera_id)
                return

    threads = []
    for camera_id, stream_name in [("front", "live"), ("back", "live")]:
        thread = threading.Thread(target=camera_worker, args=(camera_id, stream_name), daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()


def with_errors():
    try:
        with KVSHLSFrameSource(camera_id="cam-3", stream_name="nobody", region="us-west-2") as source:
            for frame, timestamp in source.read_frames():
                pass
    except KVSConnectionError as error:
        print("connection error", type(error).__name__)
    except HLSStreamError:
        sys.exit("another error was expected")
    except FrameSourceError as error:
        sys.exit(f"another error was expected: {error}")


if __name__ == "__main__":
    by_generator()
    by_hand()
    with_threads()
    with_errors()
