"""Reads a stream as scripts for AWS's consumer library do, by boto3: only where the library comes from has changed."""

import logging
import os
import sys

import boto3
from kvs_client import KvsConsumerLibrary
from kvs_client import KvsFragementProcessor

REGION = "us-west-2"
STREAM = "film"

log = logging.getLogger(__name__)
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")


class Example:
    def __init__(self, folder):
        self.folder = folder
        self.processor = KvsFragementProcessor()
        self.last_tags = None
        self.session = boto3.Session(region_name=REGION)
        self.control = self.session.client("kinesisvideo")

    def run(self):
        endpoint = self.control.get_data_endpoint(StreamName=STREAM, APIName="GET_MEDIA")["DataEndpoint"]
        media = self.session.client("kinesis-video-media", endpoint_url=endpoint)
        response = media.get_media(StreamName=STREAM, StartSelector={"StartSelectorType": "EARLIEST"})
        consumer = KvsConsumerLibrary(
            STREAM,
            response,
            self.on_fragment_arrived,
            self.on_stream_read_complete,
            self.on_stream_read_exception,
        )
        consumer.start()
        consumer.join()

    def on_fragment_arrived(self, stream_name, fragment_bytes, fragment_dom, fragment_receive_duration):
        try:
            self.last_tags = self.processor.get_fragment_tags(fragment_dom)
            number = self.last_tags["AWS_KINESISVIDEO_FRAGMENT_NUMBER"]
            float(self.last_tags["AWS_KINESISVIDEO_MILLIS_BEHIND_NOW"])
            producer = float(self.last_tags["AWS_KINESISVIDEO_PRODUCER_TIMESTAMP"])
            float(self.last_tags["AWS_KINESISVIDEO_SERVER_TIMESTAMP"])
            log.info(f"fragment {stream_name} {number} {producer:.3f} {fragment_receive_duration >= 0}")
            lines = self.processor.get_fragement_dom_pretty_string(fragment_dom).splitlines()
            log.info(f"tree {len(lines) > 30}")
            path = os.path.join(self.folder, number)
            self.processor.save_fragment_as_local_mkv(fragment_bytes, path + ".mkv")
            # A film has no sides of a call, and gets no file.
            self.processor.save_connect_fragment_audio_track_from_customer_as_wav(fragment_dom, path)
            self.processor.save_connect_fragment_audio_track_to_customer_as_wav(fragment_dom, path)
        except Exception as error:
            log.error(f"failed {error!r}")

    def on_stream_read_complete(self, stream_name):
        log.info(f"complete {stream_name} {self.last_tags['AWS_KINESISVIDEO_FRAGMENT_NUMBER']}")

    def on_stream_read_exception(self, stream_name, error):
        log.info(f"exception {stream_name} {error!r}")


if __name__ == "__main__":
    Example(sys.argv[1]).run()
