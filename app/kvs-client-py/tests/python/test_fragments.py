import datetime
import os
import subprocess
import tempfile
import unittest
import wave

from kvs_client import Fragment, FragmentParser, HLSStreamError, KvsFragementProcessor
from support import PICTURES, element, media, number


def call(blocks, tracks, tags=()):
    """A fragment as Amazon Connect records: tracks by (number, name), blocks by (number, samples)."""
    entries = [
        element("AE", [element("D7", number(n)), element("83", b"\x02"), element("536E", name.encode())])
        for n, name in tracks
    ]
    cluster = [element("E7", number(7))]
    cluster += [element("A3", bytes([0x80 | n]) + b"\x00\x00\x80" + samples) for n, samples in blocks]
    written = [
        element("67C8", [element("45A3", name.encode()), element(*value)]) for name, value in tags
    ]
    segment = element("1654AE6B", entries) + element("1F43B675", cluster)
    segment += element("1254C367", [element("7373", written)])
    return element("1A45DFA3", [element("4282", b"matroska")]) + bytes.fromhex("18538067 01FFFFFFFFFFFFFF") + segment


def parsed(body):
    parser = FragmentParser()
    [fragment] = parser.push(body) + parser.finish()
    return fragment


class Tree(unittest.TestCase):
    def test_the_tree_of_a_recorded_fragment_has_every_byte(self):
        for fragment in media()["Payload"].reader:
            raw, dom = bytes(fragment.to_bytearray()), fragment.document()
            self.assertEqual((dom.size, len(dom), dom.offset, dom.type), (len(raw), 2, 0, "matroska"))
            self.assertEqual(b"".join(top.getRaw() for top in dom), raw)
            self.check(dom, raw)
            names = [child.name for child in dom[1]]
            self.assertEqual(names.count("Cluster"), 1)
            blocks = [one for one in dom[1][names.index("Cluster")] if one.name == "SimpleBlock"]
            self.assertEqual(len(blocks), fragment.blocks)

    def check(self, parent, raw):
        for one in parent:
            self.assertEqual(one.getRaw(), raw[one.offset : one.payloadOffset + one.size])
            self.assertEqual(one.getRawValue(), raw[one.payloadOffset : one.payloadOffset + one.size])
            if isinstance(one.value, list):
                self.assertEqual(b"".join(child.getRaw() for child in one), one.getRawValue())
                self.check(one, raw)
            else:
                self.assertEqual(list(one), [])

    def test_values_have_the_types_of_python(self):
        body = element("1A45DFA3", [element("4282", b"webm\0\0")]) + element(
            "18538067",
            [
                element(
                    "1549A966",
                    [
                        element("2AD7B1", b"\x0f\x42\x40"),
                        element("4489", bytes.fromhex("40590000 00000000")),
                        element("4461", (86_400 * 10**9).to_bytes(8, "big")),
                        element("7BA9", "Tür".encode()),
                        element("73A4", bytes(16)),
                    ],
                ),
                element("1F43B675", [element("A0", [element("FB", b"\xff\xd8"), element("A1", b"\x81\0\0\0")])]),
                element("5FFF", b"mine"),
            ],
        )
        dom = parsed(body).document()
        self.assertEqual(dom[0][0].value, "webm")
        scale, duration, date, title, uid = [one.value for one in dom[1][0]]
        self.assertEqual((scale, duration, title, uid), (1_000_000, 100.0, "Tür", bytearray(16)))
        self.assertEqual(date, datetime.datetime(2001, 1, 2, tzinfo=datetime.timezone.utc))
        self.assertEqual(dom[1][1][0][0].value, -40)
        unknown = dom[1][-1]
        self.assertEqual((unknown.name, unknown.id, unknown.value), ("UnknownElement", 0x5FFF, bytearray(b"mine")))
        self.assertEqual(dom.dump()["Segment"]["Info"]["Title"], "Tür")
        self.assertIn("    Title: Tür\n", dom.pretty())
        with self.assertRaises(IndexError):
            dom[2]
        with self.assertRaises(AttributeError):
            dom.name = "other"

    def test_a_script_that_seeks_in_the_fragment_finds_what_it_knows(self):
        dom = parsed(call([(1, b"sound!")], [(1, "a")])).document()
        [block] = [one for one in dom[1][1] if one.name == "SimpleBlock"]
        block.stream.seek(block.payloadOffset + 4)
        self.assertEqual(block.parse(block.stream, block.size - 4), bytearray(b"sound!"))

    def test_nesting_beyond_reason_is_an_error(self):
        body = b""
        for _ in range(40):
            body = element("67C8", body)
        dom = parsed(
            element("1A45DFA3", b"") + element("18538067", element("1254C367", element("7373", body)))
        ).document()
        with self.assertRaises(HLSStreamError):
            dom.pretty()


class Processor(unittest.TestCase):
    processor = KvsFragementProcessor()

    def test_tags_are_those_of_the_service_and_of_the_producer(self):
        for fragment in media()["Payload"].reader:
            tags = self.processor.get_fragment_tags(fragment.document())
            self.assertEqual(tags, fragment.tags)
            self.assertEqual(tags["AWS_KINESISVIDEO_FRAGMENT_NUMBER"], fragment.number)
            self.assertEqual(float(tags["AWS_KINESISVIDEO_PRODUCER_TIMESTAMP"]), fragment.producer_timestamp)
            self.assertEqual(float(tags["AWS_KINESISVIDEO_SERVER_TIMESTAMP"]), fragment.server_timestamp)

    def test_tags_of_bytes_and_tags_that_come_twice(self):
        tags = [("a", ("4487", b"1")), ("b", ("4485", b"\0\1")), ("a", ("4487", b"2"))]
        found = self.processor.get_fragment_tags(parsed(call([(1, b"")], [(1, "x")], tags)).document())
        self.assertEqual(found, {"a": "2", "b": bytearray(b"\0\1")})
        with self.assertRaises(KeyError):
            self.processor.get_fragment_tags([])

    def test_the_tree_is_printed(self):
        fragment = next(iter(media()["Payload"].reader))
        text = self.processor.get_fragement_dom_pretty_string(fragment.document())
        for line in ("Segment", "  Cluster", "      TrackNumber: 1", "    SimpleBlock: "):
            self.assertIn(line, text)

    def test_a_saved_fragment_is_a_file_that_players_open(self):
        pictures = 0
        with tempfile.TemporaryDirectory() as folder:
            for fragment in media()["Payload"].reader:
                path = os.path.join(folder, f"{fragment.number}.mkv")
                self.processor.save_fragment_as_local_mkv(fragment.to_bytearray(), path)
                command = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0"]
                command += ["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", path]
                pictures += int(subprocess.run(command, check=True, capture_output=True).stdout)
        self.assertEqual(pictures, PICTURES)

    def test_both_sides_of_a_call_become_sound(self):
        left, right = bytes(range(0, 20)), bytes(range(100, 120))
        for tracks in ([(1, "AUDIO_FROM_CUSTOMER"), (2, "AUDIO_TO_CUSTOMER")], [(2, "AUDIO_FROM_CUSTOMER"), (1, "AUDIO_TO_CUSTOMER")]):
            of = {name: n for n, name in tracks}
            blocks = [(of["AUDIO_FROM_CUSTOMER"], left), (of["AUDIO_TO_CUSTOMER"], right)] * 2
            dom = parsed(call(blocks, tracks)).document()
            with tempfile.TemporaryDirectory() as folder:
                base = os.path.join(folder, "call")
                self.processor.save_connect_fragment_audio_track_from_customer_as_wav(dom, base)
                self.processor.save_connect_fragment_audio_track_to_customer_as_wav(dom, base)
                self.assertEqual(
                    sorted(os.listdir(folder)), ["call-AUDIO_FROM_CUSTOMER.wav", "call-AUDIO_TO_CUSTOMER.wav"]
                )
                for name, samples in (("AUDIO_FROM_CUSTOMER", left), ("AUDIO_TO_CUSTOMER", right)):
                    with wave.open(f"{base}-{name}.wav") as sound:
                        self.assertEqual(sound.getparams()[:4], (1, 2, 8000, 20))
                        self.assertEqual(sound.readframes(100), samples * 2)

    def test_half_a_sample_shifts_nothing(self):
        dom = parsed(call([(1, b"abc"), (1, b"de")], [(1, "AUDIO_FROM_CUSTOMER")])).document()
        self.assertEqual(self.processor.get_track_bytearray(dom, 1), bytearray(b"abde"))

    def test_a_fragment_without_the_track_gives_no_file(self):
        dom = parsed(call([(1, b"ab")], [(1, "other")])).document()
        self.assertIsNone(self.processor.get_track_number_by_name(dom, "AUDIO_FROM_CUSTOMER"))
        with tempfile.TemporaryDirectory() as folder:
            self.processor.save_connect_fragment_audio_track_from_customer_as_wav(dom, os.path.join(folder, "x"))
            self.assertEqual(os.listdir(folder), [])

    def test_blocks_are_taken_apart_one_by_one(self):
        dom = parsed(call([(2, b"abcd")], [(2, "x")])).document()
        time, block = dom[1][1]
        self.assertEqual(self.processor.get_audio_track_number_from_simple_block(block), 2)
        self.assertEqual(self.processor.get_raw_audio_track_from_simple_block(block), bytearray(b"abcd"))
        self.assertIsNone(self.processor.get_audio_track_number_from_simple_block(time))
        self.assertIsNone(self.processor.get_raw_audio_track_from_simple_block(time))


class OneFragment(unittest.TestCase):
    def test_what_it_says_of_itself(self):
        fragment = next(iter(media()["Payload"].reader))
        self.assertIsInstance(fragment, Fragment)
        self.assertEqual(len(fragment.number), 47)
        self.assertAlmostEqual(fragment.producer_timestamp, 1_795_186_073.633, places=3)
        self.assertEqual(len(fragment), len(fragment.to_bytearray()))
        self.assertIn(fragment.number, repr(fragment))
        copy = fragment.to_bytearray()
        copy[0] = 0
        self.assertEqual(fragment.to_bytearray()[0], 0x1A)


if __name__ == "__main__":
    unittest.main()
