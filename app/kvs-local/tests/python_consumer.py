"""Reads a stream with AWS's consumer library for Python: LIBRARY ENDPOINT STREAM.

Prints each fragment that the library hands over: operation, fragment number, blocks.
"""

import re
import sys

import boto3

LIBRARY, ENDPOINT, STREAM = sys.argv[1:]
sys.path.insert(0, LIBRARY)

from amazon_kinesis_video_consumer_library.kinesis_video_streams_parser import KvsConsumerLibrary  # noqa: E402

KEYS = dict(aws_access_key_id="AKIDKVSLOCAL", aws_secret_access_key="kvs-local-secret", region_name="us-west-2")
SEGMENT, CLUSTER, SIMPLE_BLOCK = 0x18538067, 0x1F43B675, 0xA3


def read(operation, answer):
    problems = []

    def arrived(stream, data, dom, duration):
        number = re.search(rb"AWS_KINESISVIDEO_FRAGMENT_NUMBER\x44\x87.{1,8}?(\d{47})", data, re.S)[1].decode()
        clusters = [part for element in dom if element.id == SEGMENT for part in element if part.id == CLUSTER]
        blocks = sum(block.id == SIMPLE_BLOCK for cluster in clusters for block in cluster)
        print(operation, number, blocks, flush=True)

    reader = KvsConsumerLibrary(STREAM, answer, arrived, lambda stream: None, lambda stream, error: problems.append(error))
    reader.start()
    reader.join()
    assert not problems, problems


media = boto3.client("kinesis-video-media", endpoint_url=ENDPOINT, **KEYS)
read("GetMedia", media.get_media(StreamName=STREAM, StartSelector={"StartSelectorType": "EARLIEST"}))
archive = boto3.client("kinesis-video-archived-media", endpoint_url=ENDPOINT, **KEYS)
numbers = sorted(row["FragmentNumber"] for row in archive.list_fragments(StreamName=STREAM)["Fragments"])
read("GetMediaForFragmentList", archive.get_media_for_fragment_list(StreamName=STREAM, Fragments=numbers))
