"""What the tests share."""

import json
import os
import threading
import urllib.request

from kvs_client import KvsConsumerLibrary, session

ENDS = os.environ["AWS_ENDPOINT_URL"]
"""GetMedia ends with the producer."""
STAYS = os.environ["KVS_TEST_STAYS"]
"""GetMedia stays for as long as one likes."""

FRAGMENTS, PICTURES = 5, 150
"""Of the stream `film`."""

EARLIEST = {"StartSelectorType": "EARLIEST"}
DEADLINE_S = 60
"""Nothing takes so long unless it hangs."""


def media(stream="film", endpoint=ENDS, selector=EARLIEST):
    return session.client("kinesis-video-media", endpoint_url=endpoint).get_media(
        StreamName=stream, StartSelector=selector
    )


def admin(path, body=None, endpoint=ENDS):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{endpoint}/admin/{path}", data, method="GET" if body is None else "POST")
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return json.load(answer)


def element(identity, body):
    """`body`: bytes, or elements in it."""
    body = b"".join(body) if isinstance(body, list) else body
    return bytes.fromhex(identity) + (0x10000000 | len(body)).to_bytes(4, "big") + body


def number(value):
    return value.to_bytes(2, "big")


class Told:
    """Collects what callbacks are told."""

    def __init__(self, on_fragment=None):
        self.fragments, self.completed, self.errors = [], [], []
        self.arrived = threading.Semaphore(0)
        self._on_fragment = on_fragment

    def on_fragment_arrived(self, stream_name, fragment_bytes, fragment_dom, fragment_receive_duration):
        self.fragments.append((stream_name, fragment_bytes, fragment_dom, fragment_receive_duration))
        self.arrived.release()
        if self._on_fragment:
            self._on_fragment()

    def on_stream_read_complete(self, stream_name):
        self.completed.append(stream_name)

    def on_stream_read_exception(self, stream_name, error):
        self.errors.append((stream_name, error))

    def start(self, answer, name="film"):
        consumer = KvsConsumerLibrary(
            name, answer, self.on_fragment_arrived, self.on_stream_read_complete, self.on_stream_read_exception
        )
        consumer.start()
        return consumer

    def read(self, answer, name="film"):
        consumer = self.start(answer, name)
        consumer.join(DEADLINE_S)
        assert not consumer.is_alive(), "the consumer hangs"
        return self
