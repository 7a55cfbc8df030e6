"""Reads one answer by each library, and prints what it cost: see consumer.rs."""

import os
import sys

FRAGMENTS = int(os.environ["KVS_EDGE_BENCH_FRAGMENTS"])
AWS = os.environ.get("KVS_EDGE_TEST_CONSUMER_LIBRARY")
TIMES = 3

SCRIPT = """
{imports}

count = size = 0
failed = []


def arrived(stream_name, fragment_bytes, fragment_dom, duration):
    global count, size
    count += 1
    size += len(fragment_bytes)


media = boto3.client("kinesis-video-media", region_name="us-west-2", endpoint_url={endpoint!r})
answer = media.get_media(StreamName="film", StartSelector={{"StartSelectorType": "EARLIEST"}})
consumer = KvsConsumerLibrary("film", answer, arrived, lambda name: None, lambda name, error: failed.append(error))
consumer.start()
consumer.join()
assert not failed, failed
print(count, size)
"""

OURS = "from kvs_client import KvsConsumerLibrary\n"
READERS = [
    ("the interpreter alone", "print(0, 0)"),
    ("boto3 alone, a client made", "import boto3\nboto3.client('kinesis-video-media', region_name='us-west-2')\nprint(0, 0)"),
    ("kvs_client, its own session", SCRIPT, OURS + "from kvs_client import session as boto3"),
    ("kvs_client, boto3", SCRIPT, OURS + "import boto3"),
]
if AWS:
    theirs = "from amazon_kinesis_video_consumer_library.kinesis_video_streams_parser import KvsConsumerLibrary\n"
    READERS.append(("AWS's library, boto3", SCRIPT, theirs + "import boto3"))


def measured(script):
    """CPU seconds, peak MiB, what it printed."""
    read, write = os.pipe()
    environment = {**os.environ, "PYTHONPATH": AWS or ""}
    actions = [(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_CLOSE, read)]
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", script], environment, file_actions=actions)
    os.close(write)
    with open(read) as output:
        said = output.read().split()
    _, status, used = os.wait4(process, 0)
    if status:
        sys.exit(f"a reader failed: {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, [int(word) for word in said]


def middle(values):
    return sorted(values)[len(values) // 2]


rows = []
for name, script, *imports in READERS:
    if imports:
        script = script.format(imports=imports[0], endpoint=os.environ["AWS_ENDPOINT_URL"])
    runs = [measured(script) for _ in range(1 if name.startswith("AWS") else TIMES)]
    rows.append((name, middle([run[0] for run in runs]), middle([run[1] for run in runs]), runs[0][2]))

alone, theirs = rows[0], rows[-1] if AWS else None
print("| reader | fragments | MB | CPU, s | of AWS's | peak memory, MiB | above the interpreter |")
print("|---|---:|---:|---:|---:|---:|---:|")
for name, cpu, memory, (fragments, size) in rows:
    share = f"1/{theirs[1] / cpu:.0f}" if theirs and fragments else ""
    print(
        f"| {name} | {fragments or ''} | {f'{size / 1e6:.1f}' if size else ''} | {cpu:.2f} | {share} "
        f"| {memory:.1f} | {memory - alone[2]:.1f} |"
    )
ours = rows[2]
if ours[3][0] != FRAGMENTS:
    sys.exit(f"{ours[0]}: {ours[3][0]} fragments, expected {FRAGMENTS}")
