import re
import signal
import subprocess
import sys
import unittest
import urllib.request

from support import DEADLINE_S, STAYS


class Reader(unittest.TestCase):
    def start(self, *arguments):
        command = [sys.executable, "-m", "kvs_client.reader", "--region", "us-west-2", "--endpoint-url", STAYS]
        command += ["--no-display", "--metrics-port", "0", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ended(self, process, status=0):
        out, errors = process.communicate(timeout=DEADLINE_S)
        self.assertEqual(process.returncode, status, out + errors)
        self.assertNotIn("Traceback", errors)
        return out, errors

    def test_it_ends_after_so_many_frames_and_reports(self):
        for mode in ("HLS", "GETMEDIA"):
            process = self.start("--stream-name", "live", "--mode", mode, "--max-frames", "25")
            out, errors = self.ended(process)
            self.assertEqual(errors, "")
            self.assertRegex(out, rf"final report\n  stream +live \({mode}, us-west-2\)\n")
            self.assertRegex(out, r"  frames +25 of \d+x\d+, ")
            self.assertRegex(out, r"  decode_errors +0\n  latency +\d+ ms\n$")

    def test_it_tells_its_figures_now_and_then_and_ctrl_c_ends_it(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start("--stream-name", "live", "--target-fps", "5", "--stats-seconds", "0.2")
            url = re.fullmatch(r"metrics at (http\S+)\n", process.stdout.readline()).group(1)
            told = 0
            while told < 2:
                line = process.stdout.readline()
                self.assertNotEqual(line, "", process.poll())
                told += bool(re.match(r"connected, healthy: [1-9]\d* frames of \d+x\d+, ", line))
            with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
                text = answer.read().decode()
            self.assertRegex(text, r'(?m)^kvs_hls_frames_total\{camera_id="demo-camera"\} [1-9]')
            self.assertRegex(text, r'(?m)^kvs_hls_connection_state\{camera_id="demo-camera"\} 2(\.0)?$')
            process.send_signal(number)
            out, errors = self.ended(process)
            self.assertEqual(errors, "")
            self.assertIn("\nstopped\nfinal report\n", out)

    def test_what_is_wrong_is_said_in_a_line(self):
        out, errors = self.ended(self.start("--stream-name", "nobody"), 1)
        self.assertIn("stream nobody does not exist", errors)
        self.assertIn("final report", out)
        _, errors = self.ended(self.start("--stream-name", "live", "--max-frames", "0"), 2)
        self.assertIn("expected more than 0", errors)
        _, errors = self.ended(self.start("--stream-name", "live", "--metrics-port", "70000"), 2)
        self.assertIn("--metrics-port: port is 70000", errors)


if __name__ == "__main__":
    unittest.main()
