"""What a type checker makes of scripts: read by mypy, never run. Each `type: ignore` is a mistake that must be found, since mypy
names those that are not needed."""

from typing import Any, Dict, List, Optional, Tuple

from typing_extensions import assert_type

from kvs_client import (
    Document,
    Fragment,
    FrameResult,
    FrameSource,
    GetMediaStartSelectorType,
    HLSStreamError,
    KVSConnectionError,
    KVSGetMediaFrameSource,
    KVSHLSFrameSource,
    KvsConsumerLibrary,
    KvsFragementProcessor,
    create_frame_source,
    session,
)
from kvs_client.metrics import MetricsServer


def frames() -> None:
    hls = KVSHLSFrameSource("front", "stream", region="eu-central-1", hls_session_seconds=300)
    with hls as entered:
        assert_type(entered, KVSHLSFrameSource)
        for frame, timestamp in entered.read_frames():
            assert_type(timestamp, float)
    assert_type(hls.read_frame(), Optional[Tuple[Any, float]])
    assert_type(KVSHLSFrameSource.conservative("front", "stream"), KVSHLSFrameSource)
    assert_type(hls.get_metrics(), Dict[str, Any])
    assert_type(hls.get_connection_state(), str)
    assert_type(hls.is_healthy(), bool)
    KVSHLSFrameSource("front", "stream", hls_session_seconds="300")  # type: ignore[arg-type]
    KVSHLSFrameSource("front")  # type: ignore[call-arg]
    KVSHLSFrameSource("front", "stream", chunk_size=65536)  # type: ignore[call-arg]


def switched(config: Dict[str, Any]) -> None:
    source = create_frame_source("front", "stream", config)
    success, frame = source.read_frame()
    assert_type(success, bool)
    assert_type(source.read_frame().timestamp, Optional[float])
    by_get_media = KVSGetMediaFrameSource(
        "front", "stream", start_selector_type=GetMediaStartSelectorType.NOW, max_reconnect_attempts=None
    )
    assert_type(by_get_media.read_frame(), FrameResult)
    sources: List[FrameSource] = [source, by_get_media]
    with MetricsServer(sources, port=0) as server:
        assert_type(server.port, int)


def arrived(stream_name: str, fragment_bytes: bytearray, fragment_dom: Document, receive_duration: float) -> None:
    processor = KvsFragementProcessor()
    assert_type(processor.get_frames_as_ndarray(fragment_bytes, 10), List[Any])
    assert_type([element.name for element in fragment_dom], List[str])


def callbacks() -> None:
    media = session.client("kinesis-video-media", region_name="eu-central-1")
    answer = media.get_media(StreamName="stream", StartSelector={"StartSelectorType": "NOW"})
    consumer = KvsConsumerLibrary("stream", answer, arrived, print, lambda name, error: None)
    consumer.start()
    KvsConsumerLibrary("stream", answer, arrived, print)  # type: ignore[call-arg]
    KvsConsumerLibrary("stream", answer, print, print, 5)  # type: ignore[arg-type]
    media.get_media(StreamName=5, StartSelector={})  # type: ignore[arg-type]


def fragment(one: Fragment) -> int:
    assert_type(one.number, Optional[str])
    assert_type(one.tags, Dict[str, str])
    one.sound  # type: ignore[attr-defined]
    try:
        return len(one.to_bytearray())
    except (KVSConnectionError, HLSStreamError):
        return one.size_bytes
