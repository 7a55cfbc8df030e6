import os
import subprocess
import sys
import threading
import types
import unittest
import urllib.error
import urllib.request

import numpy
from kvs_client import (
    FrameSourceError,
    GetMediaStartSelectorType,
    HLSStreamError,
    KVSConnectionError,
    KVSGetMediaFrameSource,
    KVSHLSFrameSource,
    KvsFragmentProcessor,
    create_frame_source,
)
from kvs_client.metrics import MetricsServer
from support import DEADLINE_S, ENDS, FRAGMENTS, PICTURES, STAYS, admin, media

BEGIN = 1_795_186_073.633
PATIENT = dict(timeout_seconds=DEADLINE_S)
ALL = dict(when_full="wait", **PATIENT)
RANGE = dict(start_timestamp=BEGIN - 1, end_timestamp=BEGIN + 60, **ALL)


def decoded_by_another():
    """All pictures of the film, blue first."""
    probe = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height", "-of", "csv=p=0"]
    film = os.environ["KVS_TEST_FILM"]
    said = subprocess.run([*probe, film], check=True, capture_output=True, text=True).stdout.split()[0]
    width, height = map(int, said.strip(",").split(",")[:2])
    command = ["ffmpeg", "-v", "error", "-i", film, "-an", "-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "bgr24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return numpy.frombuffer(raw, numpy.uint8).reshape(-1, height, width, 3)


class Frames(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.expected = decoded_by_another()

    def alike(self, frame, n):
        self.assertEqual((frame.shape, frame.dtype), (self.expected[n].shape, numpy.uint8))
        difference = numpy.abs(frame.astype(int) - self.expected[n].astype(int)).mean()
        # Two programs round colours differently, and spread them differently over pixels.
        self.assertLess(difference, 3.0, f"picture {n}")

    def test_every_stored_frame_is_an_array_with_its_time(self):
        source = KVSHLSFrameSource("cam-1", "film", "us-west-2", **RANGE)
        with source:
            found = list(source.read_frames())
            metrics = source.get_metrics()
        self.assertEqual(len(found), PICTURES)
        for n, (frame, _) in enumerate(found):
            self.alike(frame, n)
        times = [time for _, time in found]
        self.assertAlmostEqual(times[0], BEGIN, places=3)
        self.assertTrue(all(0.02 < later - earlier < 0.2 for earlier, later in zip(times, times[1:])))
        self.assertEqual(metrics["camera_id"], "cam-1")
        for name in ("frames_total", "frames_read"):
            self.assertEqual(metrics[name], PICTURES)
        self.assertEqual((metrics["fragments_processed"], metrics["frames_dropped"]), (FRAGMENTS, 0))
        for name in ("reconnects_total", "url_refreshes_total", "read_errors_total", "parse_errors", "decode_errors"):
            self.assertEqual(metrics[name], 0, name)
        self.assertGreater(metrics["bytes_received"], 100_000)
        self.assertIsInstance(metrics["last_frame_timestamp"], float)

        source = KVSGetMediaFrameSource(
            "cam-1", "film", "us-west-2", GetMediaStartSelectorType.EARLIEST, endpoint_url=STAYS, **ALL
        )
        with source:
            # Without an end the last pictures may wait for the next one.
            for n in range(PICTURES - 10):
                success, frame = result = source.read_frame()
                self.assertTrue(success)
                self.assertTrue((frame == found[n][0]).all(), f"picture {n}")
                self.assertEqual(result.timestamp, times[n])
            self.assertEqual(source.get_connection_state(), "connected")
            self.assertTrue(source.is_healthy())
            self.assertIsNone(source.last_error())
        self.assertEqual(source.get_connection_state(), "disconnected")
        self.assertFalse(source.is_healthy())
        self.assertEqual(tuple(source.read_frame()), (False, None))

    def test_a_frame_belongs_to_whoever_has_it(self):
        with KVSHLSFrameSource("cam-1", "film", "us-west-2", **RANGE) as source:
            first, _ = source.read_frame()
            second, _ = source.read_frame()
        kept = second.copy()
        self.assertTrue(first.flags.writeable and first.flags.c_contiguous)
        first[:] = 0
        self.assertTrue((second == kept).all())

    def test_frames_of_a_fragment_and_their_files(self):
        processor = KvsFragmentProcessor()
        at = 0
        for fragment in media()["Payload"].reader:
            body = fragment.to_bytearray()
            every = processor.get_frames_as_ndarray(body, 1)
            self.assertEqual(len(every), fragment.blocks)
            for frame in every:
                # Red first, as scripts expect it here.
                self.alike(frame[:, :, ::-1], at)
                at += 1
            some = processor.get_frames_as_ndarray(body, 7)
            self.assertEqual(len(some), len(range(0, len(every), 7)))
            self.assertTrue(all((one == other).all() for one, other in zip(some, every[::7])))
        self.assertEqual(at, PICTURES)
        with tempfolder() as folder:
            base = os.path.join(folder, "picture")
            paths = processor.save_frames_as_jpeg(body, 10, base)
            self.assertEqual(paths, [f"{base}-{n}.jpg" for n in range(len(range(0, len(every), 10)))])
            command = ["ffmpeg", "-v", "error", "-i", paths[0], "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
            raw = subprocess.run(command, check=True, capture_output=True).stdout
        picture = numpy.frombuffer(raw, numpy.uint8).reshape(every[0].shape)
        self.assertLess(numpy.abs(picture.astype(int) - every[0].astype(int)).mean(), 12.0)

    def test_what_is_no_fragment_and_no_ratio_is_told(self):
        processor = KvsFragmentProcessor()
        with self.assertRaises(HLSStreamError):
            processor.get_frames_as_ndarray(b"no fragment", 1)
        with self.assertRaises(ValueError):
            processor.get_frames_as_ndarray(b"", 0)

    def test_a_rate_is_kept(self):
        with KVSHLSFrameSource("cam-1", "film", "us-west-2", target_fps=3, **RANGE) as source:
            times = [time for _, time in source.read_frames()]
        self.assertTrue(28 <= len(times) <= 31, times)

    def test_started_again_it_begins_anew_and_counts_go_on(self):
        source = KVSHLSFrameSource("cam-1", "film", "us-west-2", **RANGE)
        self.assertEqual((source.get_connection_state(), source.get_metrics()["frames_read"]), ("disconnected", 0))
        with self.assertRaisesRegex(FrameSourceError, "not started"):
            source.read_frame()
        for times in (1, 2):
            source.start()
            source.start()
            self.assertEqual(sum(1 for _ in source.read_frames()), PICTURES)
            self.assertIsNone(source.read_frame())
            source.release()
            self.assertEqual(source.get_metrics()["frames_read"], times * PICTURES)
        source.stop()


class Ends(unittest.TestCase):
    def test_a_stream_that_does_not_exist_is_told_at_the_start(self):
        for kind in (KVSHLSFrameSource, KVSGetMediaFrameSource):
            with self.assertRaisesRegex(KVSConnectionError, "stream nobody does not exist"):
                kind("cam-1", "nobody", "us-west-2").start()

    def test_a_source_that_gives_up_says_why(self):
        for kind, path, error, arguments in (
            (KVSHLSFrameSource, "/getHLSStreamingSessionURL", HLSStreamError, dict(max_consecutive_errors=2, reconnect_delay=0.01)),
            (KVSGetMediaFrameSource, "/getMedia", KVSConnectionError, dict(max_reconnect_attempts=2, reconnect_delay_seconds=0.01)),
        ):
            refuse = {"fault": "refuse", "path": path, "error_type": "InternalFailure", "status": 500, "count": 2}
            admin("faults", refuse)
            source = kind("cam-1", "film", "us-west-2", **arguments, **PATIENT)
            with source:
                with self.assertRaisesRegex(error, "film.*InternalFailure"):
                    for _ in source.read_frames():
                        self.fail("no frame comes")
                self.assertEqual(source.get_connection_state(), "error")
                self.assertFalse(source.is_healthy())
                self.assertEqual(source.get_metrics()["read_errors_total"], 2)
            self.assertTrue(issubclass(error, FrameSourceError))

    def test_a_wait_ends_by_its_time_and_by_a_stop_and_holds_nobody_up(self):
        source = KVSGetMediaFrameSource("cam-1", "empty", "us-west-2", endpoint_url=STAYS, timeout_seconds=0.05)
        with source:
            self.assertEqual(tuple(source.read_frame()), (False, None))
        source = KVSGetMediaFrameSource("cam-1", "empty", "us-west-2", endpoint_url=STAYS, timeout_seconds=3600)
        source.start()
        found, waiting = [], threading.Event()

        def read():
            waiting.set()
            found.append(tuple(source.read_frame()))

        reader = threading.Thread(target=read)
        reader.start()
        waiting.wait(DEADLINE_S)
        source.stop()
        reader.join(DEADLINE_S)
        self.assertFalse(reader.is_alive())
        self.assertEqual(found, [(False, None)])

    def test_ctrl_c_ends_a_wait(self):
        script = f"""
import os, signal, threading
from kvs_client import KVSGetMediaFrameSource

source = KVSGetMediaFrameSource("c", "empty", "us-west-2", endpoint_url={STAYS!r}, timeout_seconds=3600)
with source:
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        source.read_frame()
    except KeyboardInterrupt:
        print("interrupted")
"""
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S)
        self.assertEqual((ran.stdout, ran.returncode), ("interrupted\n", 0), ran.stderr)

    def test_several_sources_are_read_by_threads(self):
        counts = []

        def worker(camera_id):
            with KVSHLSFrameSource(camera_id, "film", "us-west-2", **RANGE) as source:
                counts.append(sum(1 for _ in source.read_frames()))

        threads = [threading.Thread(target=worker, args=(f"cam-{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        self.assertEqual(counts, [PICTURES] * 3)


class Arguments(unittest.TestCase):
    def refused(self, kind, words, **arguments):
        with self.assertRaises(ValueError) as raised:
            kind(**{"camera_id": "cam-1", "stream_name": "film", **arguments})
        for word in words.split("|"):
            self.assertIn(word, str(raised.exception))

    def test_ranges_of_hls(self):
        for words, arguments in (
            ("camera_id", dict(camera_id="")),
            ("stream_name", dict(stream_name=" ")),
            ("stream_name", dict(stream_name=None)),
            ("region", dict(region="")),
            ("hls_session_seconds is 59|60 to 43200", dict(hls_session_seconds=59)),
            ("hls_session_seconds is 43201", dict(hls_session_seconds=43201)),
            ("hls_session_seconds is 60.5|whole", dict(hls_session_seconds=60.5)),
            ("url_refresh_margin|less than", dict(url_refresh_margin=300)),
            ("url_refresh_margin is -1", dict(url_refresh_margin=-1)),
            ("reconnect_delay", dict(reconnect_delay=0)),
            ("reconnect_delay|max_reconnect_delay", dict(reconnect_delay=61)),
            ("backoff_multiplier is 0.5", dict(backoff_multiplier=0.5)),
            ("backoff_multiplier is '2'", dict(backoff_multiplier="2")),
            ("max_consecutive_errors is 0", dict(max_consecutive_errors=0)),
            ("target_fps is 0", dict(target_fps=0)),
            ("max_size is 0", dict(max_size=0)),
            ("timeout_seconds", dict(timeout_seconds=float("nan"))),
            ("when_full is 'drop'", dict(when_full="drop")),
            ("start_timestamp", dict(start_timestamp=1)),
            ("endpoint", dict(endpoint_url="here")),
        ):
            if "endpoint_url" in arguments:
                with self.assertRaises(ValueError):
                    KVSHLSFrameSource("cam-1", "film", **arguments).start()
            else:
                self.refused(KVSHLSFrameSource, words, **arguments)
        for seconds in (60, 43200):
            KVSHLSFrameSource("cam-1", "film", hls_session_seconds=seconds)
        KVSHLSFrameSource("cam-1", "film", max_consecutive_errors=None)

    def test_ranges_of_get_media(self):
        for words, arguments in (
            ("chunk_size is 1023|1024 to 16777216", dict(chunk_size=1023)),
            ("max_reconnect_attempts is 0", dict(max_reconnect_attempts=0)),
            ("reconnect_delay", dict(reconnect_delay_seconds=0)),
            ("max_fragment_age_seconds is -1", dict(max_fragment_age_seconds=-1)),
            ("LATEST", dict(start_selector_type="LATEST")),
            ("timestamp is None|SERVER_TIMESTAMP", dict(start_selector_type="SERVER_TIMESTAMP")),
            ("fragment_number is None", dict(start_selector_type=GetMediaStartSelectorType.FRAGMENT_NUMBER)),
            ("continuation_token is '5'", dict(continuation_token="5")),
            ("timestamp is 5|NOW", dict(timestamp=5)),
            ("max_size", dict(max_size=0)),
        ):
            self.refused(KVSGetMediaFrameSource, words, **arguments)
        KVSGetMediaFrameSource("cam-1", "film", max_fragment_age_seconds=None, max_reconnect_attempts=None)

    def test_presets(self):
        for preset in (KVSHLSFrameSource.conservative, KVSHLSFrameSource.aggressive):
            self.assertIsInstance(preset("cam-1", "film", "us-west-2", target_fps=5), KVSHLSFrameSource)
        with self.assertRaisesRegex(ValueError, "url_refresh_margin"):
            KVSHLSFrameSource.aggressive("cam-1", "film", url_refresh_margin=60)

    def test_a_start_in_the_middle(self):
        source = KVSGetMediaFrameSource(
            "cam-1", "film", "us-west-2", "PRODUCER_TIMESTAMP", BEGIN + 6.0, endpoint_url=STAYS, **ALL
        )
        with source:
            self.assertAlmostEqual(source.read_frame().timestamp, BEGIN + 6.0, places=3)

    def test_a_token_that_is_not_there_yet(self):
        """As scripts resume: behind the token of an earlier run, or from a time on, or now."""
        kind = GetMediaStartSelectorType.CONTINUATION_TOKEN
        first = next(iter(media()["Payload"].reader))
        token = first.tags["AWS_KINESISVIDEO_CONTINUATION_TOKEN"]
        for begins, arguments in (
            (BEGIN + 2.0, dict(stream_name="film", continuation_token=token)),
            (BEGIN, dict(stream_name="film", timestamp=first.server_timestamp - 60)),
            (None, dict(stream_name="live")),
        ):
            endpoint = ENDS if begins else STAYS
            source = KVSGetMediaFrameSource(
                "cam-1", region="us-west-2", start_selector_type=kind, endpoint_url=endpoint, **arguments, **ALL
            )
            self.assertEqual(source.get_metrics()["latency_ms"], 0)
            with source:
                timestamp = next(source.read_frames())[1]
                if begins:
                    self.assertAlmostEqual(timestamp, begins, places=3)
                    self.assertGreater(source.get_metrics()["latency_ms"], 0)


class Switch(unittest.TestCase):
    def test_the_mode_of_a_configuration_chooses(self):
        settings = {
            "start_selector": "EARLIEST",
            "max_fragment_age_seconds": 30,
            "chunk_size": 65536,
            "reconnect_delay_seconds": 2,
            "max_reconnect_attempts": 10,
            "parser": {"type": "gstreamer"},
            "frame_queue": {"max_size": 100, "timeout_seconds": 1.0},
        }
        as_objects = types.SimpleNamespace(
            mode=types.SimpleNamespace(value="GETMEDIA"),
            retention_required=False,
            getmedia=types.SimpleNamespace(
                **{**settings, "frame_queue": types.SimpleNamespace(**settings["frame_queue"])}
            ),
        )
        for config, kind, endpoint, more in (
            ({"mode": "HLS", "hls": {"hls_session_seconds": 60}}, KVSHLSFrameSource, ENDS, RANGE),
            (types.SimpleNamespace(mode="hls", hls_session_seconds=600), KVSHLSFrameSource, ENDS, RANGE),
            ({"mode": "GETMEDIA", "retention_required": False, "getmedia": settings}, KVSGetMediaFrameSource, STAYS, ALL),
            (as_objects, KVSGetMediaFrameSource, STAYS, ALL),
        ):
            source = create_frame_source("cam-1", "film", config, region="us-west-2", endpoint_url=endpoint, **more)
            self.assertIsInstance(source, kind)
            with source:
                success, frame = result = source.read_frame()
                self.assertIs(success, True)
                self.assertEqual(frame.ndim, 3)
                self.assertAlmostEqual(result.timestamp, BEGIN, places=3)
                frame, timestamp = next(source.read_frames())
                self.assertGreater(timestamp, BEGIN)

    def test_what_a_configuration_must_not_have_is_named(self):
        for config, words in (
            ({"mode": "RTSP"}, "mode is `RTSP`"),
            ({}, "mode is `NONE`"),
            ({"mode": "HLS", "hls": {"session": 5}}, "hls has session"),
            ({"mode": "GETMEDIA", "getmedia": {"frame_queue": {"size": 5}}}, "frame_queue has size"),
            ({"mode": "HLS", "hls": {"hls_session_seconds": 5}}, "hls_session_seconds is 5"),
        ):
            with self.assertRaises(ValueError) as raised:
                create_frame_source("cam-1", "film", config)
            self.assertIn(words, str(raised.exception))


class Metrics(unittest.TestCase):
    def test_they_are_served_under_the_names_that_dashboards_have(self):
        hls = KVSHLSFrameSource("front", "film", "us-west-2", **RANGE)
        with hls:
            frames = sum(1 for _ in hls.read_frames())
        other = KVSHLSFrameSource("back", "film", "us-west-2")
        get_media = KVSGetMediaFrameSource("side", "film", "us-west-2")
        with MetricsServer([hls, other, get_media], 0) as server:
            with urllib.request.urlopen(server.url, timeout=DEADLINE_S) as answer:
                self.assertIn("openmetrics-text", answer.headers["Content-Type"])
                text = answer.read().decode()
            with self.assertRaises(urllib.error.HTTPError):
                urllib.request.urlopen(server.url + "s", timeout=DEADLINE_S)
        with self.assertRaises(urllib.error.URLError):
            urllib.request.urlopen(server.url, timeout=DEADLINE_S)
        with self.assertRaisesRegex(ValueError, "65536"):
            MetricsServer([], 65536)
        with self.assertRaisesRegex(ValueError, "localhost"):
            MetricsServer([], 0, "localhost")
        lines = text.splitlines()
        self.assertIn(f'kvs_hls_frames_total{{camera_id="front"}} {frames}', lines)
        for name in ("reconnects_total", "frames_total", "url_refreshes_total", "read_errors_total", "connection_state"):
            [value] = [line.split()[1] for line in lines if line.startswith(f'kvs_hls_{name}{{camera_id="back"}} ')]
            self.assertEqual(float(value), 0.0, name)
            typed = f"# TYPE kvs_hls_{name.removesuffix('_total')} "
            self.assertEqual(sum(line.startswith(typed) for line in lines), 1)
        self.assertTrue(any(line.startswith('kvs_hls_last_frame_timestamp{camera_id="front"} ') for line in lines))
        self.assertIn('kvs_getmedia_frames_total{camera_id="side"} 0', lines)


def tempfolder():
    import tempfile

    return tempfile.TemporaryDirectory()


if __name__ == "__main__":
    unittest.main()
