import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from support import DEADLINE_S, FRAGMENTS, STAYS, media

PORTED = pathlib.Path(__file__).with_name("ported")
SCRIPT = PORTED / "consumer.py"


class Consumer(unittest.TestCase):
    def check(self, script):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "script.py"
            path.write_text(script)
            files = pathlib.Path(folder) / "files"
            files.mkdir()
            ran = subprocess.run([sys.executable, path, files], check=True, capture_output=True, text=True)
            expected = {f"{fragment.number}.mkv": fragment.size_bytes for fragment in media()["Payload"].reader}
            lines = ran.stdout.splitlines()
            for number in (name.removesuffix(".mkv") for name in expected):
                self.assertTrue([line for line in lines if line.startswith(f"fragment film {number} ")], ran.stdout)
            self.assertEqual(lines.count("tree True"), FRAGMENTS, ran.stdout)
            self.assertEqual(lines[-1].split()[:2], ["complete", "film"], ran.stdout)
            self.assertEqual([line for line in lines if line.startswith(("failed", "exception"))], [])
            self.assertEqual(sorted(os.listdir(files)), sorted(expected))

    def test_with_boto3_only_the_library_is_another_one(self):
        self.check(SCRIPT.read_text())

    def test_with_the_client_of_this_package_in_the_place_of_boto3(self):
        text = SCRIPT.read_text()
        self.assertEqual(text.count("import boto3\n"), 1)
        self.check(text.replace("import boto3\n", "from kvs_client import session as boto3\n"))


class Sources(unittest.TestCase):
    def run_script(self, name, *arguments):
        environment = {**os.environ, "AWS_ENDPOINT_URL": STAYS}
        command = [sys.executable, str(PORTED / name), *arguments]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=5 * DEADLINE_S)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        return ran.stdout.splitlines()

    def test_by_hls(self):
        lines = self.run_script("hls.py")
        self.assertRegex(lines[0], r"^generator \(\d+, \d+, 3\) 0 0$")
        self.assertEqual(lines[1], "by hand 40 disconnected")
        self.assertEqual(sorted(lines[2:4]), ["thread back", "thread front"])
        self.assertEqual(lines[4:], ["connection error KVSConnectionError"])

    def test_by_the_switch(self):
        lines = self.run_script("get_media.py", "40")
        self.assertEqual(
            lines, ["HLS _SwitchedHLSFrameSource 40", "GETMEDIA KVSGetMediaFrameSource 40", "EARLIEST 40"]
        )


if __name__ == "__main__":
    unittest.main()
