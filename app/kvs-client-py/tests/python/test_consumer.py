import threading
import unittest

import boto3
from kvs_client import KVSConnectionError, HLSStreamError, KvsConsumerLibrary, session
from support import DEADLINE_S, EARLIEST, ENDS, FRAGMENTS, STAYS, Told, admin, element, media


class Consumer(unittest.TestCase):
    def whole_film(self, told):
        self.assertEqual([error for _, error in told.errors], [])
        self.assertEqual(told.completed, ["film"])
        self.assertEqual(len(told.fragments), FRAGMENTS)
        for name, fragment, dom, duration in told.fragments:
            self.assertEqual((name, type(fragment)), ("film", bytearray))
            self.assertEqual(fragment[:4], b"\x1a\x45\xdf\xa3")
            self.assertEqual([element.name for element in dom], ["EBML", "Segment"])
            self.assertEqual(dom.getRaw(), fragment)
            self.assertGreaterEqual(duration, 0.0)
        return [fragment for _, fragment, _, _ in told.fragments]

    def test_every_fragment_comes_and_the_last_one_too(self):
        ours = self.whole_film(Told().read(media()))
        client = boto3.client("kinesis-video-media", endpoint_url=ENDS)
        theirs = client.get_media(StreamName="film", StartSelector=EARLIEST)["Payload"].read()
        # Byte for byte what another client reads, but for tags that say how late it is.
        at = 0
        for fragment in ours:
            cluster = fragment.index(bytes.fromhex("1F43B675"))
            end = fragment.rindex(bytes.fromhex("1254C367"))
            found = theirs.find(fragment[cluster:end], at)
            self.assertGreater(found, at)
            at = found

    def test_answers_of_boto3_are_read_as_well(self):
        client = boto3.client("kinesis-video-media", endpoint_url=ENDS)
        self.whole_film(Told().read(client.get_media(StreamName="film", StartSelector=EARLIEST)))

    def test_any_bytes_are_read_however_they_are_cut(self):
        body = media()["Payload"].read()
        for length in (1, 1000, len(body)):
            pieces = [body[at : at + length] for at in range(0, len(body), length)]
            told = Told().read({"Payload": pieces})
            self.assertEqual(b"".join(self.whole_film(told)), body)

    def test_fragment_lists_are_read_by_both_clients(self):
        numbers = [row["FragmentNumber"] for row in self.rows(session.client("kinesis-video-archived-media"))]
        self.assertEqual(len(set(numbers)), FRAGMENTS)
        for made in (session.client, boto3.client):
            client = made("kinesis-video-archived-media", endpoint_url=ENDS)
            found = sorted(row["FragmentNumber"] for row in self.rows(client))
            self.assertEqual(found, sorted(numbers))
            answer = client.get_media_for_fragment_list(StreamName="film", Fragments=sorted(numbers)[1:])
            told = Told().read(answer)
            self.assertEqual((len(told.fragments), told.completed, told.errors), (FRAGMENTS - 1, ["film"], []))

    def rows(self, client):
        times = {"StartTimestamp": 0, "EndTimestamp": 4_000_000_000}
        selector = {"FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": times}
        return client.list_fragments(StreamName="film", FragmentSelector=selector)["Fragments"]

    def test_whoever_waits_is_stopped_at_once(self):
        told = Told()
        consumer = told.start(media(endpoint=STAYS))
        for _ in range(FRAGMENTS):
            self.assertTrue(told.arrived.acquire(timeout=DEADLINE_S))
        self.assertEqual(told.completed, [])
        consumer.stop_thread()
        consumer.join(DEADLINE_S)
        self.assertFalse(consumer.is_alive())
        self.assertEqual((len(told.fragments), told.completed, told.errors), (FRAGMENTS, ["film"], []))

    def test_stopped_by_its_own_callback_nothing_more_comes(self):
        for answer in (
            media(),
            boto3.client("kinesis-video-media", endpoint_url=ENDS).get_media(
                StreamName="film", StartSelector=EARLIEST
            ),
        ):
            consumers = []
            ready = threading.Event()

            def stop():
                ready.wait(DEADLINE_S)
                consumers[0].stop_thread()

            told = Told(stop)
            consumers.append(told.start(answer))
            ready.set()
            consumers[0].join(DEADLINE_S)
            self.assertEqual((len(told.fragments), told.completed, told.errors), (1, ["film"], []))

    def test_a_callback_that_raises_ends_it_by_the_exception(self):
        def fail():
            raise LookupError("no place for it")

        told = Told(fail).read(media())
        self.assertEqual((len(told.fragments), told.completed), (1, []))
        self.assertEqual([(name, repr(error)) for name, error in told.errors], [("film", "LookupError('no place for it')")])

    def test_an_answer_that_breaks_off_is_told_and_nothing_of_half_a_fragment(self):
        for answer in (
            media,
            lambda: boto3.client("kinesis-video-media", endpoint_url=ENDS).get_media(
                StreamName="film", StartSelector=EARLIEST
            ),
        ):
            admin("faults", {"fault": "cut_get_media", "after_bytes": 200_000})
            told = Told().read(answer())
            self.assertEqual(told.completed, [])
            self.assertEqual(len(told.errors), 1, told.errors)
            self.assertIn(len(told.fragments), (1, 2))

    def test_what_is_no_matroska_is_told(self):
        told = Told().read({"Payload": [b"this is no video at all, but a page of text"]})
        [(_, error)] = told.errors
        self.assertIsInstance(error, HLSStreamError)
        self.assertIn("no Matroska", str(error))

    def test_an_answer_that_ends_inside_a_fragment_is_told(self):
        body = media()["Payload"].read()
        told = Told().read({"Payload": [body[:-1000]]})
        self.assertEqual((len(told.fragments), told.completed), (FRAGMENTS - 1, []))
        [(_, error)] = told.errors
        self.assertIsInstance(error, KVSConnectionError)
        self.assertIn("inside fragment", str(error))

    def test_an_answer_that_says_why_it_ends_is_told(self):
        said = [("AWS_KINESISVIDEO_ERROR_CODE", b"3002"), ("AWS_KINESISVIDEO_ERROR_ID", b"ERROR_READING")]
        tags = [element("67C8", [element("45A3", name.encode()), element("4487", value)]) for name, value in said]
        segment = bytes.fromhex("18538067 01FFFFFFFFFFFFFF") + element("1254C367", element("7373", tags))
        told = Told().read({"Payload": [media()["Payload"].read(), element("1A45DFA3", b""), segment]})
        self.assertEqual((len(told.fragments), told.completed), (FRAGMENTS, []))
        [(_, error)] = told.errors
        self.assertIsInstance(error, KVSConnectionError)
        self.assertIn("3002", str(error))

    def test_an_empty_answer_is_complete(self):
        told = Told().read(media("empty"), "empty")
        self.assertEqual((told.fragments, told.completed, told.errors), ([], ["empty"], []))

    def test_several_streams_are_read_at_once(self):
        tolds = [Told() for _ in range(3)]
        consumers = [told.start(media()) for told in tolds]
        for consumer in consumers:
            consumer.join(DEADLINE_S)
        for told in tolds:
            self.whole_film(told)

    def test_an_answer_without_media_is_told(self):
        told = Told().read({})
        self.assertEqual([type(error) for _, error in told.errors], [KeyError])


class Session(unittest.TestCase):
    def test_the_endpoint_of_a_stream_is_asked_for(self):
        client = session.Session(region_name="us-west-2").client("kinesisvideo")
        self.assertEqual(
            client.get_data_endpoint(StreamName="film", APIName="GET_MEDIA"), {"DataEndpoint": ENDS}
        )

    def test_a_refusal_says_what_to_change(self):
        with self.assertRaises(KVSConnectionError) as raised:
            media("nobody")
        self.assertRegex(str(raised.exception), "ResourceNotFound.*stream nobody does not exist in us-west-2")
        wrong = session.Session("AKIDOTHER", "secret", region_name="us-west-2").client("kinesisvideo")
        with self.assertRaises(KVSConnectionError):
            wrong.get_data_endpoint(StreamName="film", APIName="GET_MEDIA")

    def test_wrong_arguments_are_named(self):
        client = session.client("kinesis-video-media")
        for arguments, word in (
            (dict(StreamName="film", StartSelector={"StartSelectorType": "LATEST"}), "LATEST"),
            (dict(StreamName="film", StartSelector={"StartSelectorType": "NOW", "Token": "1"}), "Token"),
            (dict(StreamName="film", StreamARN="arn:x", StartSelector=EARLIEST), "arn:x"),
        ):
            with self.assertRaises(ValueError) as raised:
                client.get_media(**arguments)
            self.assertIn(word, str(raised.exception))
        for make, word in (
            (lambda: session.client("s3"), "s3"),
            (lambda: session.Session("AKID"), "aws_secret_access_key"),
            (lambda: session.client("kinesisvideo", endpoint_url="ftp://here"), "ftp://here"),
            (lambda: session.client("kinesisvideo", region_name="Not A Region"), "Not A Region"),
        ):
            with self.assertRaises(ValueError) as raised:
                make()
            self.assertIn(word, str(raised.exception))

    def test_reading_begins_where_the_selector_says(self):
        first = next(iter(media()["Payload"].reader))
        after = {"StartSelectorType": "FRAGMENT_NUMBER", "AfterFragmentNumber": first.number}
        self.assertEqual(len(list(media(selector=after)["Payload"].reader)), FRAGMENTS - 1)
        at = {"StartSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": first.producer_timestamp + 2.0}
        rest = list(media(selector=at)["Payload"].reader)
        self.assertEqual(len(rest), FRAGMENTS - 1)
        token = {
            "StartSelectorType": "CONTINUATION_TOKEN",
            "ContinuationToken": rest[0].tags["AWS_KINESISVIDEO_CONTINUATION_TOKEN"],
        }
        self.assertEqual(len(list(media(selector=token)["Payload"].reader)), FRAGMENTS - 2)


if __name__ == "__main__":
    unittest.main()
