"""TensorFlow.js layers to ONNX, as far as convolutional detectors need them; batch 1, fixed sizes.

Maps are kept as [1, channels, height, width] throughout. TensorFlow's transposes only change in which order the graph
speaks of the axes (`Map.last`: channels last); none is written. Padding becomes an attribute of what reads it, and the
addition of a constant the bias of the convolution before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tfjs import Graph, ModelError, Node

OPSET = 13
IR_VERSION = 8
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class Map:
    """A value of the graph."""

    name: str
    channels: int
    height: int
    width: int
    last: bool
    # Top, left, bottom, right, and with what; for whoever reads it.
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill: float = 0.0


class Writer:
    """Collects nodes and constants of an ONNX graph. Names are numbers in the order of writing."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, values: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(values)
        return name

    def floats(self, values: object) -> str:
        return self.constant(np.asarray(values, np.float32))

    def integers(self, values: Sequence[int]) -> str:
        return self.constant(np.asarray(values, np.int64))

    def many(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> None:
        """A node whose outputs get these names."""
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), **attributes))

    def one(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.many(op, inputs, [name], **attributes)
        return name

    def model(self, source: str, shape: Sequence[int], output: str, output_shape: Sequence[int],
              metadata: dict[str, str]) -> bytes:
        """The file. Constants of which no value changes by it are stored in half precision."""
        stored, casts = [], []
        for name, values in self.constants.items():
            half = halved(values)
            if half is None:
                stored.append(numpy_helper.from_array(values, name))
            else:
                stored.append(numpy_helper.from_array(half, f"{name}_half"))
                casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
        graph = helper.make_graph(
            casts + self.nodes,
            "detector",
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
            stored,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def halved(values: np.ndarray) -> np.ndarray | None:
    if values.dtype != np.float32 or values.size < 512:
        return None
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else None


class Converter:
    """Writes what leads from the graph's input to the values that are asked for."""

    def __init__(self, graph: Graph, writer: Writer, scale: tuple[float, float] = (1.0, 1.0)) -> None:
        """`scale`: height and width of the input against those that the graph was made for."""
        self.graph = graph
        self.writer = writer
        self.scale = scale
        self.maps: dict[str, Map] = {}

    def bind(self, name: str, value: Map) -> None:
        self.maps[name] = value

    def map(self, name: str) -> Map:
        """The value of this node."""
        # Without recursion: graphs are deeper than Python's stack.
        waiting = [name]
        while waiting:
            top = waiting[-1]
            node = self.graph.node(top)
            needed = [name for name in self.maps_read(node) if name not in self.maps]
            if top in self.maps or not needed:
                waiting.pop()
                if top not in self.maps:
                    self.maps[top] = self.write(node)
            elif len(waiting) > len(self.graph.nodes):
                raise ModelError(f"{node.op} {node.name} reads its own output")
            else:
                waiting.extend(needed)
        return self.maps[name]

    def maps_read(self, node: Node) -> list[str]:
        return [name for name in node.inputs if name not in self.graph.constants]

    def write(self, node: Node) -> Map:
        if node.op not in LAYERS:
            raise ModelError(f"{node.op} {node.name} is none of the layers that are known: {', '.join(LAYERS)}")
        return LAYERS[node.op](self, node)

    def plain(self, name: str, reader: Node) -> Map:
        """A value without padding."""
        value = self.maps[name]
        if any(value.padding):
            raise ModelError(f"{reader.op} {reader.name} reads padding, expected only of convolutions and pools")
        return value

    def transpose(self, node: Node) -> Map:
        value = self.maps[node.inputs[0]]
        order = [int(axis) for axis in self.graph.constant(node.inputs[1])]
        if order != (TO_FIRST if value.last else TO_LAST):
            raise ModelError(f"Transpose {node.name} is {order}, expected channels first to last or back")
        return replace(value, last=not value.last)

    def pad(self, node: Node) -> Map:
        value = self.plain(node.inputs[0], node)
        amounts = self.graph.constant(node.inputs[1])
        fill = float(self.graph.constant(node.inputs[2])) if len(node.inputs) > 2 else 0.0
        batch, *rest = amounts
        rows, columns, channels = rest if value.last else (rest[1], rest[2], rest[0])
        if any(batch) or any(channels):
            raise ModelError(f"{node.op} {node.name} pads {amounts.tolist()}, expected rows and columns only")
        padding = (int(rows[0]), int(columns[0]), int(rows[1]), int(columns[1]))
        return replace(value, padding=padding, fill=fill)

    def window(self, node: Node, value: Map, size: Sequence[int]) -> tuple[list[int], list[int], int, int]:
        """Padding and strides of a node with a window, and height and width of what it makes."""
        if node.text("padding") != "VALID":
            raise ModelError(f"{node.op} {node.name} pads by itself ({node.text('padding')}), expected VALID")
        if not value.last or any(step != 1 for step in node.integers("dilations")):
            raise ModelError(f"{node.op} {node.name}: expected channels last and no dilation")
        strides = node.integers("strides")[1:3]
        top, left, bottom, right = value.padding
        height = (value.height + top + bottom - size[0]) // strides[0] + 1
        width = (value.width + left + right - size[1]) // strides[1] + 1
        return list(value.padding), strides, height, width

    def convolution(self, node: Node) -> Map:
        """With its bias, where all that reads it is an addition of one."""
        value = self.maps[node.inputs[0]]
        kernel = self.graph.constant(node.inputs[1])
        rows, columns, channels, filters = kernel.shape
        if channels != value.channels or value.fill != 0.0:
            raise ModelError(f"Conv2D {node.name} has {channels} channels and padding of {value.fill}; "
                             f"expected {value.channels} and 0.0")
        pads, strides, height, width = self.window(node, value, (rows, columns))
        inputs = [value.name, self.writer.floats(kernel.transpose(3, 2, 0, 1))]
        bias = self.bias(node, filters)
        if bias is not None:
            inputs.append(self.writer.floats(bias))
        name = self.writer.one("Conv", *inputs, kernel_shape=[rows, columns], strides=strides, pads=pads)
        return Map(name, filters, height, width, last=True)

    def bias(self, node: Node, filters: int) -> np.ndarray | None:
        readers = self.graph.readers(node.name)
        added = [name for reader in readers for name in reader.inputs if name in self.graph.constants]
        if len(readers) != 1 or readers[0].op not in ("Add", "AddV2") or len(added) != 1:
            return None
        bias = self.graph.constant(added[0])
        if bias.shape != (filters,):
            raise ModelError(f"bias {added[0]} of Conv2D {node.name} has the shape {list(bias.shape)}, "
                             f"expected [{filters}]")
        return bias

    def max_pool(self, node: Node) -> Map:
        value = self.maps[node.inputs[0]]
        if any(value.padding) and value.fill > np.finfo(np.float16).min:
            raise ModelError(f"MaxPool {node.name} is padded with {value.fill}, expected what no value is below")
        size = node.integers("ksize")[1:3]
        pads, strides, height, width = self.window(node, value, size)
        name = self.writer.one("MaxPool", value.name, kernel_shape=size, strides=strides, pads=pads)
        return Map(name, value.channels, height, width, last=True)

    def add(self, node: Node) -> Map:
        """Of two maps; a constant has been written with the convolution before it."""
        names = self.maps_read(node)
        if len(names) == 1:
            before = self.graph.node(names[0])
            if before.op != "Conv2D" or len(self.graph.readers(before.name)) != 1:
                raise ModelError(f"{node.op} {node.name} adds a constant to {before.op} {before.name}, "
                                 "expected a convolution that nothing else reads")
            return self.maps[names[0]]
        a, b = (self.plain(name, node) for name in names)
        if (a.channels, a.height, a.width, a.last) != (b.channels, b.height, b.width, b.last):
            raise ModelError(f"{node.op} {node.name} adds {a} and {b}, expected maps of one size")
        return replace(a, name=self.writer.one("Add", a.name, b.name))

    def leaky(self, node: Node) -> Map:
        value = self.plain(node.inputs[0], node)
        return replace(value, name=self.writer.one("LeakyRelu", value.name, alpha=node.number("alpha")))

    def concat(self, node: Node) -> Map:
        *names, axis = node.inputs
        values = [self.plain(name, node) for name in names]
        last = values[0].last
        if int(self.graph.constant(axis)) % 4 != (3 if last else 1) or any(value.last != last for value in values):
            raise ModelError(f"ConcatV2 {node.name}: expected maps behind one another by channels")
        name = self.writer.one("Concat", *[value.name for value in values], axis=1)
        return replace(values[0], name=name, channels=sum(value.channels for value in values))

    def resize(self, node: Node) -> Map:
        """By two, up or down, between pixel centres: exactly a mean of four, or two products with fixed weights."""
        value = self.plain(node.inputs[0], node)
        height, width = (round(int(side) * scale) for side, scale in
                         zip(self.graph.constant(node.inputs[1]), self.scale, strict=True))
        if not value.last or not node.flag("half_pixel_centers"):
            raise ModelError(f"ResizeBilinear {node.name}: expected channels last and half_pixel_centers")
        if (height * 2, width * 2) == (value.height, value.width):
            name = self.writer.one("AveragePool", value.name, kernel_shape=[2, 2], strides=[2, 2])
        elif (height, width) == (value.height * 2, value.width * 2):
            across = self.writer.one("MatMul", value.name, self.writer.floats(doubling(value.width).T))
            name = self.writer.one("MatMul", self.writer.floats(doubling(value.height)), across)
        else:
            raise ModelError(f"ResizeBilinear {node.name} makes {height}x{width} of {value.height}x{value.width}, "
                             "expected twice or half of it")
        return replace(value, name=name, height=height, width=width)


def doubling(size: int) -> np.ndarray:
    """[2 * size, size]: each row interpolates between two neighbours, three parts to one; at the ends there is one."""
    weights = np.zeros((2 * size, size), np.float32)
    for row in range(2 * size):
        near, far = row // 2, row // 2 + (1 if row % 2 else -1)
        weights[row, near] += 0.75
        weights[row, min(max(far, 0), size - 1)] += 0.25
    return weights


LAYERS = {
    "Transpose": Converter.transpose,
    "Pad": Converter.pad,
    "PadV2": Converter.pad,
    "Conv2D": Converter.convolution,
    "MaxPool": Converter.max_pool,
    "Add": Converter.add,
    "AddV2": Converter.add,
    "LeakyRelu": Converter.leaky,
    "ConcatV2": Converter.concat,
    "ResizeBilinear": Converter.resize,
}
