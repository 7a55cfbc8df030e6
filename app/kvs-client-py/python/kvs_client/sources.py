"""Frames of a stream as numpy arrays."""

from __future__ import annotations

import operator
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple, Type, TypeVar, Union

from ._native import Source
from .session import environment, environment_keys, unix_seconds

Time = Union[datetime, float]
"""A datetime, which is local time where it does not say otherwise, or Unix seconds."""


_Self = TypeVar("_Self", bound="FrameSource")
_Hls = TypeVar("_Hls", bound="KVSHLSFrameSource")


class PlaybackMode(str, Enum):
    HLS = "HLS"
    GETMEDIA = "GETMEDIA"


class ConnectionState(str, Enum):
    """What `get_connection_state` returns; Prometheus counts them from 0 in this order."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    ERROR = "error"


class GetMediaStartSelectorType(str, Enum):
    NOW = "NOW"
    EARLIEST = "EARLIEST"
    FRAGMENT_NUMBER = "FRAGMENT_NUMBER"
    SERVER_TIMESTAMP = "SERVER_TIMESTAMP"
    PRODUCER_TIMESTAMP = "PRODUCER_TIMESTAMP"
    CONTINUATION_TOKEN = "CONTINUATION_TOKEN"


class FrameResult(Tuple[bool, Any]):
    """`(success, frame)`, with the frame's time beside it."""

    timestamp: Optional[float]
    """When the picture was taken, Unix seconds."""

    def __new__(cls, frame: Any = None, timestamp: Optional[float] = None) -> "FrameResult":
        result = super().__new__(cls, (frame is not None, frame))
        result.timestamp = timestamp
        return result

    @property
    def success(self) -> bool:
        return self[0]

    @property
    def frame(self) -> Any:
        return self[1]


class FrameSource:
    """What both kinds have. A source is used by `with`, or between `start` and `stop`; it reads on a thread of its own,
    connects again by itself, and hands on the frames that come, the newest ones where nobody fetches them in time.

    Frames are numpy arrays of height x width x 3 bytes, blue first, which belong to the caller. Their time is when the
    picture was taken, by the producer's clock."""

    def __init__(
        self,
        camera_id: str,
        stream_name: str,
        region: str,
        endpoint_url: Optional[str],
        queue: Dict[str, Any],
        **mode: Dict[str, Any],
    ) -> None:
        for name, value in (("camera_id", camera_id), ("stream_name", stream_name), ("region", region)):
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name} is {value!r}, expected a name")
        self.camera_id = camera_id
        self.stream_name = stream_name
        self.region = region
        account = {
            "stream": stream_name,
            "region": region,
            "endpoint_url": environment(endpoint_url),
            "keys": environment_keys(),
        }
        self._source = Source(account, {**queue, "name": camera_id}, **mode)

    def start(self) -> None:
        """Begins to read. Raises KVSConnectionError where only somebody's change would help, such as a stream that does
        not exist; what may pass by itself, such as a network that is down, is tried again."""
        self._source.start()

    def stop(self) -> None:
        """Ends it, from any thread; whoever waits for a frame gets none."""
        self._source.stop()

    release = stop

    def read_frames(self) -> Iterator[Tuple[Any, float]]:
        """`(frame, timestamp)` as they come, until the source is stopped or has come to its end. Raises
        FrameSourceError once it has given up."""
        while True:
            found = self._read(None)
            if found is not None:
                yield found
            elif self._source.over:
                return

    def get_metrics(self) -> Dict[str, Any]:
        """Counts since it was made: `frames_read` (also `frames_total`), `fragments_processed`, `bytes_received`,
        `parse_errors`, `decode_errors`, `connection_resets` (also `reconnects_total`), `url_refreshes_total`,
        `read_errors_total`, `frames_dropped` (newer ones took their place), `fragments_skipped`; and
        `last_frame_timestamp` (Unix seconds; None before the first frame) and `latency_ms` (age of the last frame when it
        was decoded; 0 before the first frame, so that it can always be reckoned with). `kvs_client.metrics` serves them for
        Prometheus."""
        metrics = self._source.metrics()
        return {"camera_id": self.camera_id, **metrics, "latency_ms": metrics["latency_ms"] or 0}

    def get_connection_state(self) -> str:
        """One of the values of ConnectionState."""
        return self._source.connection_state()

    def is_healthy(self) -> bool:
        """It is connected, and its last frame is at most 30 s old."""
        return self._source.is_healthy()

    def last_error(self) -> Optional[str]:
        """The last thing that went wrong, if anything has since the last whole fragment."""
        return self._source.last_error()

    def read_frame(self) -> Any:
        """The next frame, in the shape of the kind of source."""
        raise NotImplementedError

    def __enter__(self: _Self) -> _Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    def _read(self, timeout_seconds: Optional[float]) -> Optional[Tuple[Any, float]]:
        found = self._source.read(timeout_seconds)
        if found is None:
            return None
        buffer, height, width, timestamp = found
        return as_array(buffer, height, width), timestamp


class KVSHLSFrameSource(FrameSource):
    """A stream by HLS: what is archived, some fragments behind the camera.

    hls_session_seconds: how long a session's URL is used, 60 to 43200; the service is asked for at least 300.
    url_refresh_margin: so many seconds before that a new one is asked for.
    reconnect_delay, backoff_multiplier, max_reconnect_delay: seconds after the first error, then so many times longer
    each time, at most so long; each 80 to 120 % of it.
    max_consecutive_errors: so many without a fragment in between end it by HLSStreamError; None: it never gives up.
    start_timestamp, end_timestamp: what was recorded between them, by producer time; without them live.
    target_fps: frames a second, at most. max_size, timeout_seconds: frames that wait, and how long `read_frame` does.
    when_full: `newest`: the oldest frame gives way; `wait`: reading waits, and no frame is lost.
    """

    def __init__(
        self,
        camera_id: str,
        stream_name: str,
        region: str = "us-east-1",
        hls_session_seconds: int = 300,
        url_refresh_margin: float = 30,
        reconnect_delay: float = 5,
        max_reconnect_delay: float = 60,
        backoff_multiplier: float = 2.0,
        max_consecutive_errors: Optional[int] = 10,
        *,
        start_timestamp: Optional[Time] = None,
        end_timestamp: Optional[Time] = None,
        target_fps: Optional[float] = None,
        max_size: int = 100,
        timeout_seconds: float = 1.0,
        when_full: str = "newest",
        endpoint_url: Optional[str] = None,
    ) -> None:
        hls = {
            "hls_session_seconds": _count("hls_session_seconds", hls_session_seconds),
            "url_refresh_margin": _number("url_refresh_margin", url_refresh_margin),
            "reconnect_delay": _number("reconnect_delay", reconnect_delay),
            "max_reconnect_delay": _number("max_reconnect_delay", max_reconnect_delay),
            "backoff_multiplier": _number("backoff_multiplier", backoff_multiplier),
            "max_consecutive_errors": _count("max_consecutive_errors", max_consecutive_errors, True),
            "start": unix_seconds(start_timestamp),
            "end": unix_seconds(end_timestamp),
        }
        queue = _queue(target_fps, max_size, timeout_seconds, when_full)
        super().__init__(camera_id, stream_name, region, endpoint_url, queue, hls=hls)

    @classmethod
    def conservative(
        cls: Type[_Hls], camera_id: str, stream_name: str, region: str = "us-east-1", **others: Any
    ) -> _Hls:
        """For streams that are watched for days: long sessions, patient with errors."""
        preset: Dict[str, Any] = dict(
            hls_session_seconds=1800,
            url_refresh_margin=120,
            reconnect_delay=10,
            max_reconnect_delay=300,
            backoff_multiplier=2.0,
            max_consecutive_errors=20,
        )
        return cls(camera_id, stream_name, region, **{**preset, **others})

    @classmethod
    def aggressive(
        cls: Type[_Hls], camera_id: str, stream_name: str, region: str = "us-east-1", **others: Any
    ) -> _Hls:
        """For trying things out: short sessions, quick to fail."""
        preset: Dict[str, Any] = dict(
            hls_session_seconds=60,
            url_refresh_margin=10,
            reconnect_delay=1,
            max_reconnect_delay=10,
            backoff_multiplier=1.5,
            max_consecutive_errors=5,
        )
        return cls(camera_id, stream_name, region, **{**preset, **others})

    def read_frame(self) -> Optional[Tuple[Any, float]]:
        """`(frame, timestamp)`; None: there was none in time, or the source is over."""
        return self._read(None)


class KVSGetMediaFrameSource(FrameSource):
    """A stream by GetMedia: live, 1 to 3 s behind the camera, without retention; or stored from a place on.

    start_selector_type: NOW, EARLIEST, FRAGMENT_NUMBER (after_fragment_number), SERVER_TIMESTAMP, PRODUCER_TIMESTAMP
    (timestamp) or CONTINUATION_TOKEN (continuation_token; where there is none yet: as SERVER_TIMESTAMP with timestamp, or else
    NOW).
    max_fragment_age_seconds: from NOW on, what KVS received longer ago is left out; None: nothing is too old.
    chunk_size: bytes that are read at once, 1024 to 16777216.
    reconnect_delay_seconds: after the first error; then twice as long each time, at most 60; each 80 to 120 % of it.
    max_reconnect_attempts: so many errors without a fragment in between end it by KVSConnectionError; None: never.
    target_fps, max_size, timeout_seconds, when_full: as KVSHLSFrameSource.
    """

    def __init__(
        self,
        camera_id: str,
        stream_name: str,
        region: str = "us-east-1",
        start_selector_type: Union[GetMediaStartSelectorType, str] = GetMediaStartSelectorType.NOW,
        timestamp: Optional[Time] = None,
        max_fragment_age_seconds: Optional[float] = 30,
        chunk_size: int = 65536,
        reconnect_delay_seconds: float = 2,
        max_reconnect_attempts: Optional[int] = 10,
        max_size: int = 100,
        timeout_seconds: float = 1.0,
        *,
        after_fragment_number: Optional[str] = None,
        continuation_token: Optional[str] = None,
        target_fps: Optional[float] = None,
        when_full: str = "newest",
        endpoint_url: Optional[str] = None,
    ) -> None:
        kind = getattr(start_selector_type, "value", start_selector_type)
        if kind == "CONTINUATION_TOKEN" and continuation_token is None:
            kind = "NOW" if timestamp is None else "SERVER_TIMESTAMP"
        given = {
            "FRAGMENT_NUMBER": ("after_fragment_number", after_fragment_number),
            "SERVER_TIMESTAMP": ("timestamp", timestamp),
            "PRODUCER_TIMESTAMP": ("timestamp", timestamp),
            "CONTINUATION_TOKEN": ("continuation_token", continuation_token),
        }
        if kind in given and given[kind][1] is None:
            raise ValueError(f"{given[kind][0]} is None, expected one with the start selector {kind}")
        wanted = given.get(kind, ("", None))[0]
        for name, value in given.values():
            if value is not None and name != wanted:
                raise ValueError(f"{name} is {value!r}, expected none with the start selector {kind}")
        get_media = {
            "start_selector_type": str(kind),
            "after_fragment_number": after_fragment_number,
            "start_timestamp": unix_seconds(timestamp),
            "continuation_token": continuation_token,
            "max_fragment_age_seconds": _number("max_fragment_age_seconds", max_fragment_age_seconds, True),
            "chunk_size": _count("chunk_size", chunk_size),
            "reconnect_delay_seconds": _number("reconnect_delay_seconds", reconnect_delay_seconds),
            "max_reconnect_attempts": _count("max_reconnect_attempts", max_reconnect_attempts, True),
        }
        queue = _queue(target_fps, max_size, timeout_seconds, when_full)
        super().__init__(camera_id, stream_name, region, endpoint_url, queue, get_media=get_media)

    def read_frame(self) -> FrameResult:
        """`(success, frame)`; its `timestamp` is the frame's. Without success there was none in time, or the source is
        over."""
        return FrameResult(*(self._read(None) or ()))


class _SwitchedHLSFrameSource(KVSHLSFrameSource):
    """Read as the other mode is, so that a script does not see the difference."""

    def read_frame(self) -> FrameResult:
        return FrameResult(*(self._read(None) or ()))


def create_frame_source(
    camera_id: str, stream_name: str, playback_config: Any, region: str = "us-east-1", **others: Any
) -> Union[_SwitchedHLSFrameSource, KVSGetMediaFrameSource]:
    """The source that a configuration asks for by its `mode`, HLS or GETMEDIA. Whichever it is, `read_frame` returns
    `(success, frame)` and `read_frames` yields `(frame, timestamp)`.

    `playback_config` is a mapping or an object:

        mode: GETMEDIA
        retention_required: false
        getmedia:
          start_selector: NOW
          max_fragment_age_seconds: 30
          chunk_size: 65536
          reconnect_delay_seconds: 2
          max_reconnect_attempts: 10
          parser: {type: gstreamer}
          frame_queue: {max_size: 100, timeout_seconds: 1.0}
        hls:
          hls_session_seconds: 300
          ...

    What of it is absent is as by default. The parser is this package's, whatever the configuration names. `others` are
    arguments of the source, such as `target_fps` or `endpoint_url`.
    """
    mode = _get(playback_config, "mode")
    mode = str(getattr(mode, "value", mode)).upper()
    if mode == PlaybackMode.HLS.value:
        settings = _settings(playback_config, "hls", _HLS)
        # Some configurations have them beside the mode.
        for name in _HLS:
            if name not in settings and _get(playback_config, name) is not None:
                settings[name] = _get(playback_config, name)
        return _SwitchedHLSFrameSource(camera_id, stream_name, region, **{**settings, **others})
    if mode == PlaybackMode.GETMEDIA.value:
        settings = _settings(playback_config, "getmedia", _GETMEDIA)
        queue = settings.pop("frame_queue", None)
        settings.update(_pick(queue, "frame_queue", ("max_size", "timeout_seconds")))
        settings.pop("parser", None)
        if "start_selector" in settings:
            settings["start_selector_type"] = settings.pop("start_selector")
        return KVSGetMediaFrameSource(camera_id, stream_name, region, **{**settings, **others})
    raise ValueError(f"mode is `{mode}`, expected HLS or GETMEDIA")


_HLS = (
    "hls_session_seconds",
    "url_refresh_margin",
    "reconnect_delay",
    "max_reconnect_delay",
    "backoff_multiplier",
    "max_consecutive_errors",
)
_GETMEDIA = (
    "start_selector",
    "timestamp",
    "after_fragment_number",
    "continuation_token",
    "max_fragment_age_seconds",
    "chunk_size",
    "reconnect_delay_seconds",
    "max_reconnect_attempts",
    "parser",
    "frame_queue",
)


def _settings(config: Any, section: str, names: Tuple[str, ...]) -> Dict[str, Any]:
    return _pick(_get(config, section), section, names)


def _pick(config: Any, section: str, names: Tuple[str, ...]) -> Dict[str, Any]:
    """What is set of these names; of a mapping nothing else may be."""
    if isinstance(config, Mapping):
        unknown = sorted(set(config) - set(names))
        if unknown:
            raise ValueError(f"{section} has {', '.join(unknown)}, expected some of {', '.join(names)}")
        return dict(config)
    found = ((name, getattr(config, name, None)) for name in names)
    return {name: value for name, value in found if value is not None}


def _get(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _queue(target_fps: Optional[float], max_size: int, timeout_seconds: float, when_full: str) -> Dict[str, Any]:
    if when_full not in ("newest", "wait"):
        raise ValueError(f"when_full is {when_full!r}, expected newest or wait")
    return {
        "max_size": _count("max_size", max_size),
        "timeout_seconds": _number("timeout_seconds", timeout_seconds),
        "target_fps": _number("target_fps", target_fps, True),
        "waits": when_full == "wait",
    }


def _count(name: str, value: Any, optional: bool = False) -> Optional[int]:
    if value is None and optional:
        return None
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}, expected a whole number") from None
    if not 0 <= count < 1 << 32:
        raise ValueError(f"{name} is {count}, expected 0 to {(1 << 32) - 1}")
    return count


def _number(name: str, value: Any, optional: bool = False) -> Optional[float]:
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} is {value!r}, expected a number")
    return float(value)


def as_array(buffer: bytearray, height: int, width: int) -> Any:
    """Over the buffer, without a copy."""
    # Here, because it takes twice the memory of everything else.
    import numpy

    return numpy.frombuffer(buffer, numpy.uint8).reshape(height, width, 3)
