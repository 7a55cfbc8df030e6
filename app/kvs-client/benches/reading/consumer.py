"""Reads one GetMedia answer with AWS's consumer library for Python: LIBRARY ENDPOINT STREAM.

Prints fragments that arrived, CPU seconds of the whole process, and its peak memory in MiB.
"""

import resource
import sys

import boto3

LIBRARY, ENDPOINT, STREAM = sys.argv[1:]
sys.path.insert(0, LIBRARY)

from amazon_kinesis_video_consumer_library.kinesis_video_streams_parser import KvsConsumerLibrary  # noqa: E402

KEYS = dict(aws_access_key_id="AKIDKVSLOCAL", aws_secret_access_key="kvs-local-secret", region_name="us-west-2")
fragments, problems = 0, []


def arrived(stream, data, dom, duration):
    global fragments
    fragments += 1


media = boto3.client("kinesis-video-media", endpoint_url=ENDPOINT, **KEYS)
answer = media.get_media(StreamName=STREAM, StartSelector={"StartSelectorType": "EARLIEST"})
reader = KvsConsumerLibrary(STREAM, answer, arrived, lambda stream: None, lambda stream, error: problems.append(error))
reader.start()
reader.join()
assert not problems, problems
used = resource.getrusage(resource.RUSAGE_SELF)
print(fragments, f"{used.ru_utime + used.ru_stime:.2f}", f"{used.ru_maxrss / 1024:.1f}")
