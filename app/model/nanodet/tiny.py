"""For the tests: a small TensorFlow.js graph of the same kinds of layers, and what TensorFlow makes of it, in numpy."""

import base64
import json

import numpy as np

from layers import TO_FIRST, TO_LAST


class Builder:
    """Writes a graph model. Values are [1, channels, height, width], as in the real graph."""

    def __init__(self, height: int, width: int) -> None:
        self.random = np.random.default_rng(7)
        self.nodes = [{"name": "input_1", "op": "Placeholder", "attr": {
            "shape": {"shape": {"dim": [{"size": str(n)} for n in (1, 3, height, width)]}}}}]
        self.manifest: list[dict] = []
        self.weights = b""

    def constant(self, values: np.ndarray, half: bool = False) -> str:
        name = f"constant_{len(self.manifest)}"
        weight = {"name": name, "shape": list(values.shape), "dtype": "int32"}
        kind = "<i4"
        if values.dtype.kind == "f":
            weight["dtype"], kind = "float32", "<f2" if half else "<f4"
            if half:
                weight["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
        self.manifest.append(weight)
        self.weights += values.astype(kind).tobytes()
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append({"name": name, "op": op, "input": list(inputs), "attr": attributes})
        return name

    def transpose(self, value: str, order: list[int]) -> str:
        return self.node("Transpose", value, self.constant(np.array(order)))

    def convolution(self, value: str, channels: int, filters: int, size: int = 3, stride: int = 1,
                    more: np.ndarray | float = 0.0) -> str:
        """`more` is added to the bias of each filter."""
        edge = size // 2
        padding = np.array([[0, 0], [0, 0], [edge, edge], [edge, edge]])
        if edge:
            value = self.node("Pad", value, self.constant(padding))
        kernel = self.random.normal(0, (size * size * channels) ** -0.5, (size, size, channels, filters))
        value = self.node(
            "Conv2D", self.transpose(value, TO_LAST), self.constant(kernel.astype(np.float32), half=True),
            padding={"s": base64.b64encode(b"VALID").decode()},
            strides={"list": {"i": ["1", str(stride), str(stride), "1"]}},
            dilations={"list": {"i": ["1"] * 4}},
        )
        bias = (self.random.normal(0, 0.5, filters) + more).astype(np.float32)
        return self.transpose(self.node("Add", value, self.constant(bias, half=True)), TO_FIRST)

    def leaky(self, value: str) -> str:
        return self.node("LeakyRelu", value, alpha={"f": 0.1})

    def pool(self, value: str) -> str:
        padding = self.constant(np.array([[0, 0], [0, 0], [1, 1], [1, 1]]))
        value = self.node("PadV2", value, padding, self.constant(np.float32(-np.inf)[None].reshape(()), half=True))
        value = self.node(
            "MaxPool", self.transpose(value, TO_LAST),
            padding={"s": base64.b64encode(b"VALID").decode()},
            ksize={"list": {"i": ["1", "3", "3", "1"]}}, strides={"list": {"i": ["1", "2", "2", "1"]}},
        )
        return self.transpose(value, TO_FIRST)

    def concat(self, *values: str) -> str:
        return self.node("ConcatV2", *values, self.constant(np.array(1)))

    def resize(self, value: str, height: int, width: int) -> str:
        size = self.constant(np.array([height, width]))
        resized = self.node("ResizeBilinear", self.transpose(value, TO_LAST), size, half_pixel_centers={"b": True})
        return self.transpose(resized, TO_FIRST)

    def files(self) -> tuple[bytes, bytes]:
        document = {"modelTopology": {"node": self.nodes},
                    "weightsManifest": [{"paths": ["x.bin"], "weights": self.manifest}]}
        return json.dumps(document).encode(), self.weights


def detector(classes: int, height: int = 64, width: int = 64, more: np.ndarray | float = 0.0) -> Builder:
    """Three heads like those of NanoDet, on a backbone of a few channels. `more` is added to what the heads say."""
    graph = Builder(height, width)
    x = graph.leaky(graph.convolution("input_1", 3, 6, stride=2))
    x = graph.pool(x)
    a = graph.leaky(graph.convolution(x, 6, 4))
    eight = graph.leaky(graph.convolution(graph.concat(a, x), 10, 8, stride=2))
    sixteen = graph.leaky(graph.convolution(eight, 8, 8, stride=2))
    thirty_two = graph.leaky(graph.convolution(sixteen, 8, 8, stride=2))
    coarse = graph.convolution(thirty_two, 8, 8, size=1)
    middle = graph.node("Add", sixteen, graph.resize(coarse, height // 16, width // 16))
    fine = graph.node("AddV2", graph.resize(middle, height // 8, width // 8), eight)
    middle = graph.node("Add", middle, graph.resize(fine, height // 16, width // 16))
    for value in (fine, middle, coarse):
        head = graph.convolution(graph.leaky(graph.convolution(value, 8, 8)), 8, classes + 44, size=1,
                                 more=more)
        sizes = graph.constant(np.array([classes, 44]))
        graph.node("SplitV", head, sizes, graph.constant(np.array(1)))
    return graph


def evaluate(graph, picture: np.ndarray, scale: tuple[float, float] = (1.0, 1.0)) -> dict[str, np.ndarray]:
    """Every value of the graph by the definitions of TensorFlow's operators."""
    values = {name: values for name, values in graph.constants.items()}
    values["input_1"] = picture
    for node in graph.nodes.values():
        if node.op not in ("Placeholder", "SplitV"):
            values[node.name] = OPERATORS[node.op](node, scale, *[values[name] for name in node.inputs])
    return values


def windows(node, value: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """[1, height, width, channels, rows, columns]"""
    seen = np.lib.stride_tricks.sliding_window_view(value, (rows, columns), axis=(1, 2))
    _, down, across, _ = node.integers("strides")
    return seen[:, ::down, ::across]


def convolution(node, _scale, value: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.einsum("nhwcij,ijcf->nhwf", windows(node, value, *kernel.shape[:2]), kernel)


def resize(_node, scale, value: np.ndarray, size: np.ndarray) -> np.ndarray:
    for axis, wanted in ((1, size[0] * scale[0]), (2, size[1] * scale[1])):
        wanted, given = int(wanted), value.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape([-1 if n == axis else 1 for n in range(4)])
        high = np.minimum(low + 1, given - 1)
        value = value.take(low, axis) * (1 - part) + value.take(high, axis) * part
    return value


OPERATORS = {
    "Pad": lambda _node, _scale, x, amounts: np.pad(x, amounts),
    "PadV2": lambda _node, _scale, x, amounts, fill: np.pad(x, amounts, constant_values=fill),
    "Transpose": lambda _node, _scale, x, order: x.transpose(order),
    "Conv2D": convolution,
    "Add": lambda _node, _scale, a, b: a + b,
    "AddV2": lambda _node, _scale, a, b: a + b,
    "LeakyRelu": lambda node, _scale, x: np.where(x < 0, node.number("alpha") * x, x),
    "MaxPool": lambda node, _scale, x: windows(node, x, 3, 3).max((4, 5)),
    "ConcatV2": lambda _node, _scale, *x: np.concatenate(x[:-1], int(x[-1])),
    "ResizeBilinear": resize,
}
