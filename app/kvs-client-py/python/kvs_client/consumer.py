"""Fragments of an answer, handed to callbacks by a thread."""

from __future__ import annotations

from threading import Thread
from time import perf_counter
from typing import Any, Callable, Iterator, Mapping

from ._native import Document, Fragment, FragmentParser, KVSConnectionError, MediaReader

# Of what boto3 reads. A piece is never waited for: what has come is handed on.
_PIECE_BYTES = 1 << 18


class KvsConsumerLibrary(Thread):
    """Reads the answer of GetMedia or GetMediaForFragmentList on a thread of its own: `start()` begins.

    `get_media_response_object` is the answer of boto3, or of `kvs_client.session`: a dict with the media under
    `Payload`. The callbacks run on this thread, one after the other; while one runs, nothing is read.

    `on_fragment_arrived(stream_name, fragment_bytes, fragment_dom, fragment_receive_duration)`: one whole fragment
    as a bytearray, as the tree of its elements, and how many seconds it took to come. The last fragment of an answer
    is delivered, too, and each at the moment when it is whole.

    `on_read_stream_complete(stream_name)`: the answer has ended, or `stop_thread` was called.

    `on_read_stream_exception(stream_name, error)`: it broke off, or says itself why it ends, or a callback raised. Nothing comes after it.
    """

    def __init__(
        self,
        stream_name: str,
        get_media_response_object: Mapping[str, Any],
        on_fragment_arrived: Callable[[str, bytearray, Document, float], Any],
        on_read_stream_complete: Callable[[str], Any],
        on_read_stream_exception: Callable[[str, Exception], Any],
    ) -> None:
        super().__init__(name=f"kvs-consumer-{stream_name}")
        self._stop_get_media = False
        self.stream_name = stream_name
        self.get_media_response_object = get_media_response_object
        self.on_fragment_arrived_callback = on_fragment_arrived
        self.on_read_stream_complete_callback = on_read_stream_complete
        self.on_read_stream_exception = on_read_stream_exception

    def stop_thread(self) -> None:
        """Ends the thread behind the fragment that is being handed on, by `on_read_stream_complete`.

        An answer of `kvs_client.session` is left at once; one of boto3 when its next bytes come.
        """
        self._stop_get_media = True
        reader = getattr(self.get_media_response_object.get("Payload"), "reader", None)
        if isinstance(reader, MediaReader):
            reader.close()

    def run(self) -> None:
        try:
            began = perf_counter()
            for fragment in self._fragments(self.get_media_response_object["Payload"]):
                if self._stop_get_media:
                    break
                if fragment.failure:
                    raise KVSConnectionError(f"{self.stream_name}: {fragment.failure}")
                # An answer may end behind the tags that open a fragment.
                if not fragment.blocks:
                    continue
                self.on_fragment_arrived_callback(
                    self.stream_name, fragment.to_bytearray(), fragment.document(), perf_counter() - began
                )
                # While the next one comes, nothing of this one is kept.
                del fragment
                began = perf_counter()
            self.on_read_stream_complete_callback(self.stream_name)
        except Exception as error:  # noqa: BLE001: whatever it is, the callback is told
            self.on_read_stream_exception(self.stream_name, error)

    def _fragments(self, payload: Any) -> Iterator[Fragment]:
        reader = getattr(payload, "reader", payload)
        if isinstance(reader, MediaReader):
            yield from reader
            return
        parser = FragmentParser()
        for piece in _pieces(payload):
            # Even where it is no fragment's end.
            if self._stop_get_media:
                return
            yield from parser.push(bytes(piece))
        yield from parser.finish()


def _pieces(payload: Any) -> Iterator[bytes]:
    """What has come, as it comes. Reading a number of bytes would wait for all of them, and 1 KiB at a time, as the
    body of botocore is iterated, costs more than everything else."""
    raw = getattr(payload, "_raw_stream", None)
    pieces: Iterator[bytes]
    if raw is not None and getattr(raw, "chunked", False) and raw.supports_chunked_reads():
        pieces = raw.stream(_PIECE_BYTES)
    else:
        pieces = iter(payload)
    return pieces
