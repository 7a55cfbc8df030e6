"""Drives every modelled operation with AWS's own Python SDK: strict models, real signatures.

PutMedia is in no model, so it is sent by hand, signed by the SDK.

usage: boto3_client.py ENDPOINT BODY STREAM FRAGMENT_NUMBER... ; the stream holds exactly these fragments, as many
as BODY, a recorded PutMedia body, has. Streams named `bad-...` hold one fragment each that is refused by that name.
AWS_CA_BUNDLE names the certificate of an HTTPS endpoint.
"""

import base64
import datetime
import hashlib
import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

ENDPOINT, BODY, STREAM, NUMBERS = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]


def client(service, secret="kvs-local-secret", access_key="AKIDKVSLOCAL", region="us-west-2"):
    return boto3.client(
        service,
        endpoint_url=ENDPOINT,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )


def refused(code, status, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response
        assert found["Error"]["Code"] == code, (code, found)
        assert found["ResponseMetadata"]["HTTPStatusCode"] == status, (status, found)
        assert found["ResponseMetadata"]["RequestId"], found
        return found["Error"].get("Message")
    raise AssertionError(f"{call.__name__} was not refused with {code}")


def control():
    kvs = client("kinesisvideo")
    created = kvs.create_stream(
        StreamName="boto",
        DeviceName="device",
        MediaType="video/h264",
        DataRetentionInHours=2,
        Tags={"site": "north"},
    )
    arn = created["StreamARN"]
    assert arn.startswith("arn:aws:kinesisvideo:us-west-2:111122223333:stream/boto/"), arn
    assert len(arn.rsplit("/", 1)[1]) == 13, arn
    refused("ResourceInUseException", 400, kvs.create_stream, StreamName="boto")
    refused("InvalidArgumentException", 400, kvs.create_stream, StreamName="a b")
    refused("InvalidArgumentException", 400, kvs.create_stream, StreamName="c", DataRetentionInHours=87601)

    info = kvs.describe_stream(StreamName="boto")["StreamInfo"]
    assert info == kvs.describe_stream(StreamARN=arn)["StreamInfo"]
    assert info["Status"] == "ACTIVE" and info["StreamARN"] == arn, info
    assert info["DeviceName"] == "device" and info["MediaType"] == "video/h264", info
    assert info["DataRetentionInHours"] == 2 and len(info["Version"]) == 20, info
    age = datetime.datetime.now(datetime.timezone.utc) - info["CreationTime"]
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5), info
    refused("ResourceNotFoundException", 404, kvs.describe_stream, StreamName="nobody")
    refused("InvalidArgumentException", 400, kvs.describe_stream, StreamName="boto", StreamARN=arn)
    refused("InvalidArgumentException", 400, kvs.describe_stream)

    apis = ("PUT_MEDIA", "GET_MEDIA", "LIST_FRAGMENTS", "GET_MEDIA_FOR_FRAGMENT_LIST", "GET_CLIP", "GET_IMAGES")
    for api in (*apis, "GET_HLS_STREAMING_SESSION_URL", "GET_DASH_STREAMING_SESSION_URL"):
        assert kvs.get_data_endpoint(StreamName="boto", APIName=api)["DataEndpoint"] == ENDPOINT

    refused(
        "VersionMismatchException", 400, kvs.update_stream, StreamName="boto", CurrentVersion="x", DeviceName="d"
    )
    kvs.update_stream(StreamARN=arn, CurrentVersion=info["Version"], DeviceName="other")
    changed = kvs.describe_stream(StreamName="boto")["StreamInfo"]
    assert changed["DeviceName"] == "other" and changed["MediaType"] == "video/h264", changed
    assert changed["Version"] != info["Version"], changed

    retention = dict(StreamName="boto", DataRetentionChangeInHours=3)
    kvs.update_data_retention(
        CurrentVersion=changed["Version"], Operation="INCREASE_DATA_RETENTION", **retention
    )
    grown = kvs.describe_stream(StreamName="boto")["StreamInfo"]
    assert grown["DataRetentionInHours"] == 5, grown
    refused(
        "VersionMismatchException",
        400,
        kvs.update_data_retention,
        CurrentVersion=changed["Version"],
        Operation="DECREASE_DATA_RETENTION",
        **retention,
    )
    kvs.update_data_retention(CurrentVersion=grown["Version"], Operation="DECREASE_DATA_RETENTION", **retention)
    assert kvs.describe_stream(StreamName="boto")["StreamInfo"]["DataRetentionInHours"] == 2

    kvs.tag_stream(StreamName="boto", Tags={"owner": "ops", "site": "south"})
    assert kvs.list_tags_for_stream(StreamName="boto")["Tags"] == {"owner": "ops", "site": "south"}
    kvs.untag_stream(StreamName="boto", TagKeyList=["owner"])
    assert kvs.list_tags_for_stream(StreamARN=arn)["Tags"] == {"site": "south"}
    too_many = {f"key{number}": "" for number in range(50)}
    refused("TagsPerResourceExceededLimitException", 400, kvs.tag_stream, StreamName="boto", Tags=too_many)

    for number in range(5):
        kvs.create_stream(StreamName=f"many-{number}")
    pages = kvs.get_paginator("list_streams").paginate(
        StreamNameCondition={"ComparisonOperator": "BEGINS_WITH", "ComparisonValue": "many-"},
        PaginationConfig={"PageSize": 2},
    )
    pages = [[stream["StreamName"] for stream in page["StreamInfoList"]] for page in pages]
    assert [len(page) for page in pages] == [2, 2, 1], pages
    assert sorted(sum(pages, [])) == [f"many-{number}" for number in range(5)], pages
    names = {stream["StreamName"] for stream in kvs.list_streams()["StreamInfoList"]}
    names = {name for name in names if not name.startswith("bad-")}
    assert names == {"boto", STREAM, *(f"many-{number}" for number in range(5))}, names

    refused("VersionMismatchException", 400, kvs.delete_stream, StreamARN=arn, CurrentVersion="x")
    kvs.delete_stream(StreamARN=arn)
    refused("ResourceNotFoundException", 404, kvs.delete_stream, StreamARN=arn)
    refused("ResourceNotFoundException", 404, kvs.describe_stream, StreamName="boto")


def media():
    media = client("kinesis-video-media")
    selectors = {
        "EARLIEST": {},
        "FRAGMENT_NUMBER": {"AfterFragmentNumber": NUMBERS[0]},
        "CONTINUATION_TOKEN": {"ContinuationToken": NUMBERS[0]},
        "SERVER_TIMESTAMP": {"StartTimestamp": datetime.datetime(2020, 1, 1)},
        "PRODUCER_TIMESTAMP": {"StartTimestamp": datetime.datetime(2020, 1, 1)},
        "NOW": {},
    }
    first = {"FRAGMENT_NUMBER": 1, "CONTINUATION_TOKEN": 1, "NOW": len(NUMBERS) - 1}
    for kind, arguments in selectors.items():
        answer = media.get_media(StreamName=STREAM, StartSelector={"StartSelectorType": kind, **arguments})
        assert answer["ContentType"] == "video/webm", answer
        body = answer["Payload"].read()
        found = [number for number in NUMBERS if number.encode() in body]
        assert found == NUMBERS[first.get(kind, 0) :], (kind, found)
    refused(
        "ResourceNotFoundException",
        404,
        media.get_media,
        StreamName="nobody",
        StartSelector={"StartSelectorType": "NOW"},
    )

    archive = client("kinesis-video-archived-media")
    pages = archive.get_paginator("list_fragments").paginate(
        StreamName=STREAM, PaginationConfig={"PageSize": 2}
    )
    pages = [page["Fragments"] for page in pages]
    assert all(len(page) <= 2 for page in pages), pages
    fragments = sum(pages, [])
    assert sorted(fragment["FragmentNumber"] for fragment in fragments) == NUMBERS, fragments
    for fragment in fragments:
        assert fragment["FragmentSizeInBytes"] > 10_000, fragment
        assert 1_900 <= fragment["FragmentLengthInMilliseconds"] <= 2_100, fragment
    fragments.sort(key=lambda fragment: fragment["FragmentNumber"])
    for kind, key in (("SERVER_TIMESTAMP", "ServerTimestamp"), ("PRODUCER_TIMESTAMP", "ProducerTimestamp")):
        # This SDK drops fractions of a second.
        end = fragments[2][key] + datetime.timedelta(seconds=1)
        selected = archive.list_fragments(
            StreamName=STREAM,
            FragmentSelector={
                "FragmentSelectorType": kind,
                "TimestampRange": {"StartTimestamp": fragments[1][key], "EndTimestamp": end},
            },
        )["Fragments"]
        found = {fragment["FragmentNumber"] for fragment in selected}
        assert found >= {fragments[1]["FragmentNumber"], fragments[2]["FragmentNumber"]}, (kind, found)
        assert kind == "SERVER_TIMESTAMP" or len(found) == 2, found

    wanted = [NUMBERS[2], NUMBERS[0]]
    answer = archive.get_media_for_fragment_list(StreamName=STREAM, Fragments=wanted)
    assert answer["ContentType"] == "video/webm", answer
    body = answer["Payload"].read()
    assert body.index(wanted[0].encode()) < body.index(wanted[1].encode())
    assert b"MILLIS_BEHIND_NOW" not in body and b"CONTINUATION_TOKEN" not in body
    refused("InvalidArgumentException", 400, archive.get_media_for_fragment_list, StreamName=STREAM, Fragments=["1"])


def fetch(url):
    """Body, or the HTTP status of a refusal."""
    cafile = os.environ.get("AWS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=cafile) if cafile else None
    try:
        with urllib.request.urlopen(url, timeout=20, context=context) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.code


def playback():
    archive = client("kinesis-video-archived-media")
    day = dict(StartTimestamp=datetime.datetime.now() - datetime.timedelta(hours=12))
    day["EndTimestamp"] = day["StartTimestamp"] + datetime.timedelta(hours=24)
    selector = dict(FragmentSelectorType="SERVER_TIMESTAMP", TimestampRange=day)
    for container, name in (("FRAGMENTED_MP4", "getMP4MediaFragment.mp4"), ("MPEG_TS", "getTSFragment.ts")):
        url = archive.get_hls_streaming_session_url(
            StreamName=STREAM,
            PlaybackMode="ON_DEMAND",
            HLSFragmentSelector=selector,
            ContainerFormat=container,
            DiscontinuityMode="ON_DISCONTINUITY",
            DisplayFragmentTimestamp="ALWAYS",
            Expires=300,
            MaxMediaPlaylistFragmentResults=5000,
        )["HLSStreamingSessionURL"]
        assert url.startswith(ENDPOINT + "/hls/v1/getHLSMasterPlaylist.m3u8?SessionToken="), url
        master = fetch(url).decode().splitlines()
        media = fetch(urllib.parse.urljoin(url, master[-1])).decode().splitlines()
        segments = [line for line in media if line.startswith(name + "?")]
        found = [urllib.parse.parse_qs(segment.split("?")[1])["FragmentNumber"] for segment in segments]
        assert found == [[number] for number in NUMBERS], media
        assert media[-1] == "#EXT-X-ENDLIST", media
        assert all(len(fetch(urllib.parse.urljoin(url, segment))) > 10_000 for segment in segments)
        assert fetch(url.replace("SessionToken=", "SessionToken=x")) == 403
    url = archive.get_dash_streaming_session_url(
        StreamName=STREAM,
        PlaybackMode="ON_DEMAND",
        DASHFragmentSelector=selector,
        DisplayFragmentNumber="ALWAYS",
        DisplayFragmentTimestamp="ALWAYS",
    )["DASHStreamingSessionURL"]
    manifest = fetch(url).decode()
    assert all(f'kvs:fn="{number}"' in manifest for number in NUMBERS), manifest
    clip = archive.get_clip(StreamName=STREAM, ClipFragmentSelector=selector)
    assert clip["ContentType"] == "video/mp4", clip
    clip = clip["Payload"].read()
    assert clip[4:8] == b"ftyp" and clip.count(b"moof") == len(NUMBERS), clip[:64]

    live = archive.get_hls_streaming_session_url(StreamName=STREAM)["HLSStreamingSessionURL"]
    assert b"#EXT-X-STREAM-INF" in fetch(live)
    url_of = archive.get_hls_streaming_session_url
    refused("InvalidArgumentException", 400, url_of, StreamName=STREAM, HLSFragmentSelector=selector)
    refused("InvalidArgumentException", 400, url_of, StreamName=STREAM, PlaybackMode="ON_DEMAND")
    refused("ResourceNotFoundException", 404, url_of, StreamName="nobody")


def images():
    """JPEG and PNG of the pictures that are shown at given times, in pages; what there is none of is said."""
    archive = client("kinesis-video-archived-media")
    fragments = archive.list_fragments(StreamName=STREAM)["Fragments"]
    # This SDK drops fractions of a second: the first time lies before the footage, which is 10 s long.
    begin = min(fragment["ProducerTimestamp"] for fragment in fragments).replace(microsecond=0)
    asked = dict(
        StreamName=STREAM,
        ImageSelectorType="PRODUCER_TIMESTAMP",
        StartTimestamp=begin,
        EndTimestamp=begin + datetime.timedelta(seconds=13),
        SamplingInterval=3000,
    )
    kinds = {"JPEG": (b"\xff\xd8\xff", dict(FormatConfig={"JPEGQuality": "50"})), "PNG": (b"\x89PNG", {})}
    for kind, (magic, more) in kinds.items():
        found, token = [], {}
        while not found or token:
            page = archive.get_images(Format=kind, MaxResults=2, **asked, **more, **token)
            assert 1 <= len(page["Images"]) <= 2, page
            found += page["Images"]
            token = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
        times = [(image["TimeStamp"] - begin).total_seconds() for image in found]
        assert times == [0, 3, 6, 9, 12], times
        assert [image.get("Error") for image in found] == ["NO_MEDIA", None, None, None, "NO_MEDIA"], found
        pictures = [base64.b64decode(image["ImageContent"]) for image in found[1:4]]
        assert all(picture.startswith(magic) for picture in pictures), pictures
        assert len(set(pictures)) == 3, "each is another picture"
    asked["Format"] = "JPEG"
    get = archive.get_images
    small = get(**asked, WidthPixels=64, HeightPixels=36)["Images"][1]["ImageContent"]
    assert len(small) < len(found[1]["ImageContent"]), "it was made smaller"
    later = begin + datetime.timedelta(seconds=301)
    refused("IllegalArgumentException", 400, get, **{**asked, "EndTimestamp": later})
    refused("InvalidArgumentException", 400, get, **{**asked, "EndTimestamp": begin - datetime.timedelta(seconds=1)})
    refused("InvalidArgumentException", 400, get, **asked, NextToken="AAAA")
    refused("InvalidArgumentException", 400, get, **asked, FormatConfig={"JPEGQuality": "0"})
    refused("ValidationException", 400, get, **asked, WidthPixels=64)
    refused("ResourceNotFoundException", 404, get, **{**asked, "StreamName": "nobody"})


def refusals():
    """What the archived operations refuse, each by its name."""
    control, archive = client("kinesisvideo"), client("kinesis-video-archived-media")
    now = datetime.datetime.now()

    def asked(hours):
        """Every operation with a range: of one hour, which ends this many hours from now."""
        end = now + datetime.timedelta(hours=hours)
        times = dict(StartTimestamp=end - datetime.timedelta(hours=1), EndTimestamp=end)
        selector = dict(FragmentSelectorType="SERVER_TIMESTAMP", TimestampRange=times)
        return (
            (archive.get_hls_streaming_session_url, dict(PlaybackMode="ON_DEMAND", HLSFragmentSelector=selector)),
            (archive.get_dash_streaming_session_url, dict(PlaybackMode="ON_DEMAND", DASHFragmentSelector=selector)),
            (archive.get_clip, dict(ClipFragmentSelector=selector)),
        )

    control.create_stream(StreamName="boto-none")
    control.create_stream(StreamName="boto-empty", DataRetentionInHours=1)
    image = dict(StartTimestamp=now, EndTimestamp=now, SamplingInterval=3000, Format="PNG")
    image["ImageSelectorType"] = "SERVER_TIMESTAMP"
    for call, arguments in (*asked(0.5), (archive.list_fragments, {}), (archive.get_images, image)):
        refused("NoDataRetentionException", 400, call, StreamName="boto-none", **arguments)
    for stream, hours in (("boto-empty", 0.5), (STREAM, -5)):
        for call, arguments in asked(hours):
            refused("ResourceNotFoundException", 404, call, StreamName=stream, **arguments)
    # Live, without footage of the last 30 s.
    for call in (archive.get_hls_streaming_session_url, archive.get_dash_streaming_session_url):
        refused("ResourceNotFoundException", 404, call, StreamName="boto-empty")

    bad = [stream["StreamName"] for stream in control.list_streams()["StreamInfoList"]]
    bad = [name for name in bad if name.startswith("bad-")]
    assert len(bad) == 4, bad
    for stream in bad:
        error = stream.removeprefix("bad-")
        for call, arguments in asked(0.5):
            # A session reads the pictures when they are fetched.
            if error == "InvalidMediaFrameException" and "url" in call.__name__:
                url = next(iter(call(StreamName=stream, **arguments).values()))
                if "HLS" in url:
                    media = fetch(urllib.parse.urljoin(url, fetch(url).decode().splitlines()[-1])).decode()
                    assert fetch(urllib.parse.urljoin(url, media.splitlines()[-2])) == 400, media
            else:
                refused(error, 400, call, StreamName=stream, **arguments)
        fragment = archive.list_fragments(StreamName=stream)["Fragments"][0]
        # Its producer time is a whole second.
        image["StartTimestamp"] = image["EndTimestamp"] = fragment["ProducerTimestamp"]
        image["ImageSelectorType"] = "PRODUCER_TIMESTAMP"
        found = archive.get_images(StreamName=stream, **image)["Images"]
        assert [image.get("Error") for image in found] == ["MEDIA_ERROR"], found


class Signer(SigV4Auth):
    """SigV4 over what producers sign instead of the body."""

    def __init__(self, payload, secret):
        super().__init__(Credentials("AKIDKVSLOCAL", secret), "kinesisvideo", "us-west-2")
        self.hash = payload

    def payload(self, request):
        return self.hash


def send_media(payload, secret="kvs-local-secret"):
    """Status and acks; `payload` is what stands in the canonical request."""
    headers = {
        "x-amzn-stream-name": "boto-put",
        "x-amzn-fragment-timecode-type": "ABSOLUTE",
        "x-amzn-producer-start-timestamp": "1795186073.633",
        "x-amzn-fragment-acknowledgment-required": "1",
    }
    request = AWSRequest("POST", ENDPOINT + "/putMedia?X-Amz-Expires=60", headers=headers)
    Signer(payload, secret).add_auth(request)
    url = urllib.parse.urlsplit(ENDPOINT)
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
        connection = http.client.HTTPSConnection(url.netloc, timeout=20, context=context)
    else:
        connection = http.client.HTTPConnection(url.netloc, timeout=20)
    with open(BODY, "rb") as body:
        chunks = iter(lambda: body.read(50_000), b"")
        sent = {**dict(request.headers.items()), "Transfer-Encoding": "chunked"}
        connection.request("POST", "/putMedia?X-Amz-Expires=60", chunks, sent, encode_chunked=True)
        answer = connection.getresponse()
        return answer.status, [json.loads(line) for line in answer.read().splitlines()]


def put_media():
    client("kinesisvideo").create_stream(StreamName="boto-put", DataRetentionInHours=1)
    for payload in (hashlib.sha256(b"").hexdigest(), "UNSIGNED-PAYLOAD"):
        status, acks = send_media(payload)
        assert status == 200, acks
        for event in ("BUFFERING", "RECEIVED", "PERSISTED"):
            assert len([ack for ack in acks if ack["EventType"] == event]) == len(NUMBERS), acks
    status, answer = send_media("UNSIGNED-PAYLOAD", secret="wrong")
    assert status == 403, answer


def signatures():
    wrong = client("kinesisvideo", secret="wrong")
    message = refused("InvalidSignatureException", 403, wrong.list_streams)
    assert message.startswith("The request signature we calculated does not match"), message
    unknown = client("kinesisvideo", access_key="AKIDSTRANGER")
    refused("UnrecognizedClientException", 403, unknown.list_streams)
    elsewhere = client("kinesisvideo", region="eu-central-1")
    refused("InvalidSignatureException", 403, elsewhere.list_streams)


control()
media()
playback()
images()
refusals()
put_media()
signatures()
print("all operations as expected")
