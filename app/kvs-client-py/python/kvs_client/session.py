"""The operations that a consumer calls, in the shape that boto3 has, by the client of this package.

`from kvs_client import session as boto3` is enough for a script that reads a stream; media then never pass through
Python before they are whole fragments.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from ._native import Client as _Native
from ._native import MediaReader

Keys = Tuple[str, str, Optional[str]]
"""Access key, secret and session token."""

_SERVICES = ("kinesisvideo", "kinesis-video-media", "kinesis-video-archived-media")


class Session:
    """Region and keys of the clients that it makes. What is not given comes from where AWS programs look for it."""

    def __init__(
        self,
        aws_access_key_id: Optional[str] = None,
        aws_secret_access_key: Optional[str] = None,
        aws_session_token: Optional[str] = None,
        region_name: Optional[str] = None,
    ) -> None:
        self.region_name = region_name
        self._keys: Optional[Keys] = None
        if aws_access_key_id is not None and aws_secret_access_key is not None:
            self._keys = (aws_access_key_id, aws_secret_access_key, aws_session_token)
        elif aws_access_key_id is not None or aws_secret_access_key is not None:
            raise ValueError("found one of aws_access_key_id and aws_secret_access_key, expected both or none")

    def client(
        self, service_name: str, region_name: Optional[str] = None, endpoint_url: Optional[str] = None
    ) -> "Client":
        """`service_name`: kinesisvideo, kinesis-video-media or kinesis-video-archived-media; each client has the
        operations of all three."""
        if service_name not in _SERVICES:
            raise ValueError(f"service `{service_name}`: expected {', '.join(_SERVICES)}")
        return Client(region_name or self.region_name, endpoint_url, self._keys)


def client(service_name: str, **arguments: Any) -> "Client":
    """A client by the default session, or by keys given here."""
    session = {name: arguments.pop(name) for name in list(arguments) if name.startswith("aws_")}
    return Session(**session).client(service_name, **arguments)


class Client:
    """Reads streams. Errors are KVSConnectionError; they say what to change."""

    def __init__(
        self,
        region_name: Optional[str] = None,
        endpoint_url: Optional[str] = None,
        keys: Optional[Keys] = None,
    ) -> None:
        self._native = native_client(region_name, endpoint_url, keys)

    def get_data_endpoint(self, *, StreamName: str = "", StreamARN: str = "", APIName: str) -> Dict[str, Any]:
        return {"DataEndpoint": self._native.get_data_endpoint(_stream(StreamName, StreamARN), APIName)}

    def get_media(
        self, *, StreamName: str = "", StreamARN: str = "", StartSelector: Mapping[str, Any]
    ) -> Dict[str, Any]:
        known = {"StartSelectorType", "AfterFragmentNumber", "StartTimestamp", "ContinuationToken"}
        _refuse(set(StartSelector) - known, "StartSelector", known)
        reader = self._native.get_media(
            _stream(StreamName, StreamARN),
            StartSelector["StartSelectorType"],
            StartSelector.get("AfterFragmentNumber"),
            unix_seconds(StartSelector.get("StartTimestamp")),
            StartSelector.get("ContinuationToken"),
        )
        return {"ContentType": "video/webm", "Payload": Payload(reader)}

    def get_media_for_fragment_list(
        self, *, StreamName: str = "", StreamARN: str = "", Fragments: Sequence[str]
    ) -> Dict[str, Any]:
        reader = self._native.get_media_for_fragment_list(_stream(StreamName, StreamARN), list(Fragments))
        return {"ContentType": "video/webm", "Payload": Payload(reader)}

    def list_fragments(
        self, *, StreamName: str = "", StreamARN: str = "", FragmentSelector: Mapping[str, Any]
    ) -> Dict[str, Any]:
        """All of them, however many: there is no NextToken."""
        kind, times = FragmentSelector["FragmentSelectorType"], FragmentSelector["TimestampRange"]
        if kind not in ("PRODUCER_TIMESTAMP", "SERVER_TIMESTAMP"):
            raise ValueError(
                f"FragmentSelectorType `{kind}`: expected PRODUCER_TIMESTAMP or SERVER_TIMESTAMP"
            )
        rows = self._native.list_fragments(
            _stream(StreamName, StreamARN),
            kind == "SERVER_TIMESTAMP",
            _seconds("StartTimestamp", times["StartTimestamp"]),
            _seconds("EndTimestamp", times["EndTimestamp"]),
        )
        names = (
            "FragmentNumber",
            "FragmentSizeInBytes",
            "ProducerTimestamp",
            "ServerTimestamp",
            "FragmentLengthInMilliseconds",
        )
        fragments: List[Dict[str, Any]] = [dict(zip(names, row)) for row in rows]
        for fragment in fragments:
            for name in ("ProducerTimestamp", "ServerTimestamp"):
                fragment[name] = datetime.fromtimestamp(fragment[name]).astimezone()
        return {"Fragments": fragments}


class Payload:
    """The media of an answer. `KvsConsumerLibrary` takes it apart; else it is iterated, or read, as bytes."""

    def __init__(self, reader: MediaReader) -> None:
        self.reader = reader
        self._rest = b""

    def __iter__(self) -> Iterator[bytes]:
        return self.iter_chunks()

    def iter_chunks(self, chunk_size: int = 1024) -> Iterator[bytes]:
        while True:
            piece = self.read(chunk_size)
            if not piece:
                return
            yield piece

    def read(self, amt: Optional[int] = None) -> bytes:
        """At most `amt` bytes, as soon as a fragment with them is whole; without it everything to the end."""
        if amt is None:
            pieces = [self._rest, *(bytes(fragment.to_bytearray()) for fragment in self.reader)]
            self._rest = b""
            return b"".join(pieces)
        if not self._rest:
            fragment = self.reader.next_fragment()
            self._rest = b"" if fragment is None else bytes(fragment.to_bytearray())
        piece, self._rest = self._rest[:amt], self._rest[amt:]
        return piece

    def close(self) -> None:
        self.reader.close()


def native_client(
    region: Optional[str], endpoint_url: Optional[str] = None, keys: Optional[Keys] = None
) -> _Native:
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise ValueError("no region: give one, such as eu-central-1, or set AWS_REGION")
    return _Native(region, environment(endpoint_url), keys or environment_keys())


def environment_keys() -> Optional[Keys]:
    """Keys that the environment has, which come first wherever AWS programs look for them. None: the places behind it
    are looked at, for which there is more to be loaded."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    key, secret, token = (os.environ.get(name) or None for name in names)
    return (key, secret, token) if key and secret else None


def environment(endpoint_url: Optional[str]) -> Optional[str]:
    """The endpoint that is given, or that the environment names, as for other AWS programs."""
    names = ("AWS_ENDPOINT_URL_KINESIS_VIDEO", "AWS_ENDPOINT_URL")
    return endpoint_url or next(filter(None, map(os.environ.get, names)), None)


def unix_seconds(time: Any) -> Optional[float]:
    """Of a datetime, which is local time where it does not say otherwise, or of a number."""
    if time is None:
        return None
    return time.timestamp() if isinstance(time, datetime) else float(time)


def _seconds(name: str, time: Any) -> float:
    seconds = unix_seconds(time)
    if seconds is None:
        raise ValueError(f"{name} is None, expected a time")
    return seconds


def _stream(name: str, arn: str) -> str:
    if bool(name) == bool(arn):
        raise ValueError(f"found StreamName `{name}` and StreamARN `{arn}`, expected one of them")
    return name or arn


def _refuse(found: Set[str], where: str, known: Set[str]) -> None:
    if found:
        raise ValueError(f"{where} has {sorted(found)}, expected some of {sorted(known)}")
