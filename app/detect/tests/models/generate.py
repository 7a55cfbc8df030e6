"""Makes the small models that the tests load: python3 generate.py (needs the packages onnx and numpy).

All of them look at the mean of each 16x16 patch of the picture: red is the score of class 0, blue of class 1, and the
box is the patch. So a test paints a patch and knows what must be detected. The models in `bad` have one fault each.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
WIDTH, HEIGHT, PATCH = 64, 32, 16
COLUMNS, ROWS = WIDTH // PATCH, HEIGHT // PATCH
BOXES = COLUMNS * ROWS
F32, F16, F64, U8, I64 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.UINT8,
    TensorProto.INT64,
)


class Model:
    def __init__(self):
        self.nodes, self.weights = [], []

    def add(self, op, *inputs, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def const(self, array):
        name = f"const_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def save(self, path, inputs, outputs, metadata=None):
        infos = [helper.make_tensor_value_info(*port) for port in inputs]
        for last, port in zip(self.nodes[-len(outputs):], outputs):
            last.output[0] = port[0]
        graph = helper.make_graph(
            self.nodes, "patches", infos, [helper.make_tensor_value_info(*port) for port in outputs], self.weights
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, metadata or {})
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_bytes(model.SerializeToString())


def corners():
    """Centre x, centre y, width, height of each patch, [1, 4, BOXES]."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS].reshape(2, -1).astype(np.float32)
    side = np.full(BOXES, PATCH, np.float32)
    return np.stack([(x + 0.5) * PATCH, (y + 0.5) * PATCH, side, side])[None]


def patches(model, picture):
    """[batch, 3, BOXES]: means of the patches."""
    means = model.add("AveragePool", picture, kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
    return model.add("Reshape", means, model.const(np.array([0, 3, -1], np.int64)))


def split(model, means):
    """Red and blue, each [batch, 1, BOXES]."""
    both = []
    for channel in (0, 2):
        both.append(model.add("Gather", means, model.const(np.array([channel], np.int64)), axis=1))
    return both


def boxes(model, like, values):
    nothing = model.add("Mul", like, model.const(np.float32(0)))
    return model.add("Add", nothing, values if isinstance(values, str) else model.const(values))


def yolov8(model, picture, scores=2, change=None):
    red, blue = split(model, patches(model, picture))
    if change:
        red, blue = change(model, red), change(model, blue)
    return model.add("Concat", boxes(model, red, corners()), red, *[blue] * (scores - 1), axis=1)


NAMES = {"task": "detect", "names": "{0: 'person', 1: 'vehicle'}"}


def simple(path, batch=1, width=WIDTH, height=HEIGHT, element=F32, metadata=None, scores=2, change=None, after=None,
           output=None):
    model = Model()
    yolov8(model, "images", scores, change)
    if after:
        after(model)
    output = output or ("output0", F32, [batch, 4 + scores, BOXES])
    model.save(path, [("images", element, [batch, 3, height, width])], [output], metadata)


def end_to_end():
    model = Model()
    red, blue = split(model, patches(model, "images"))
    centre = corners()[0]
    edges = np.concatenate([centre[:2] - PATCH / 2, centre[:2] + PATCH / 2])[None].astype(np.float32)
    score = model.add("Max", red, blue)
    kind = model.add("Cast", model.add("Greater", blue, red), to=F32)
    table = model.add("Concat", boxes(model, red, edges), score, kind, axis=1)
    model.add("Transpose", table, perm=[0, 2, 1])
    model.save(
        "end_to_end.onnx",
        [("images", F32, ["batch", 3, HEIGHT, WIDTH])],
        [("output0", F32, ["batch", BOXES, 6])],
        NAMES,
    )


def bytes_in():
    model = Model()
    picture = model.add("Transpose", model.add("Cast", "images", to=F32), perm=[0, 3, 1, 2])
    yolov8(model, model.add("Mul", picture, model.const(np.float32(1 / 255))))
    model.save(
        "bytes.onnx",
        [("images", U8, ["batch", HEIGHT, WIDTH, 3])],
        [("output0", F32, ["batch", 6, BOXES])],
        NAMES,
    )


def open_size():
    """Height and width are open; one box for the whole of it, since patches would need its size."""
    model = Model()
    means = model.add("ReduceMean", "images", axes=[2, 3], keepdims=1)
    means = model.add("Reshape", means, model.const(np.array([0, 3, -1], np.int64)))
    red, blue = split(model, means)
    one = np.full((1, 4, 1), 16, np.float32)
    model.add("Concat", boxes(model, red, one), red, blue, axis=1)
    model.save(
        "open_size.onnx",
        [("images", F32, [1, 3, "height", "width"])],
        [("output0", F32, [1, 6, "boxes"])],
        NAMES,
    )


def crowd():
    """20,000 boxes, all of them certain, on one heap."""
    model = Model()
    means = model.add("ReduceMean", "images", axes=[2, 3], keepdims=1)
    one = model.add("Reshape", means, model.const(np.array([0, 3, 1], np.int64)))
    red, _ = split(model, one)
    numbers = model.add("Range", *[model.const(np.float32(number)) for number in (0, 20000, 1)])
    numbers = model.add("Reshape", numbers, model.const(np.array([1, 1, -1], np.int64)))
    x, y, side = (model.add("Mod", numbers, model.const(np.float32(size)), fmod=1) for size in (64, 31, 7))
    side = model.add("Add", side, model.const(np.float32(8)))
    heap = model.add("Concat", x, y, side, side, axis=1)
    wide = boxes(model, red, heap)
    score = model.add("Add", model.add("Mul", x, model.const(np.float32(0))), model.const(np.float32(0.9)))
    model.add("Concat", wide, score, score, axis=1)
    model.save(
        "crowd.onnx", [("images", F32, [1, 3, HEIGHT, WIDTH])], [("output0", F32, [1, 6, 20000])], NAMES
    )


def bad():
    def to(element):
        return lambda model: model.add("Cast", model.nodes[-1].output[0], to=element)

    simple("bad/float64.onnx", after=to(F64), output=("output0", F64, [1, 6, BOXES]))
    simple("bad/int64.onnx", after=to(I64), output=("output0", I64, [1, 6, BOXES]))
    simple("bad/batch_of_four.onnx", batch=4)
    simple(
        "bad/classes_80.onnx",
        scores=80,
        after=lambda model: model.add("Concat", *[model.nodes[-1].output[0]] * 20, axis=2),
        output=("output0", F32, [1, 84, 20 * BOXES]),
    )
    simple("bad/segmentation.onnx", metadata={"task": "segment"})
    simple(
        "bad/rank2.onnx",
        after=lambda model: model.add("Squeeze", model.nodes[-1].output[0], model.const(np.array([0], np.int64))),
        output=("output0", F32, [6, BOXES]),
    )
    # A score is the root of a negative number: not a number.
    simple(
        "bad/nan.onnx",
        change=lambda model, score: model.add("Sqrt", model.add("Sub", score, model.const(np.float32(2)))),
    )
    simple(
        "bad/logits.onnx",
        change=lambda model, score: model.add("Sub", model.add("Mul", score, model.const(np.float32(20))),
                                              model.const(np.float32(15))),
    )
    simple("bad/unknown_operator.onnx", after=lambda model: model.add("Levitate", model.nodes[-1].output[0]))

    # Says any batch, but its shapes are fixed inside.
    model = Model()
    fixed = model.add("Reshape", "images", model.const(np.array([1, 3, HEIGHT, WIDTH], np.int64)))
    yolov8(model, fixed)
    model.save("bad/pretended_batch.onnx", [("images", F32, ["batch", 3, HEIGHT, WIDTH])],
               [("output0", F32, ["batch", 6, BOXES])], NAMES)

    # Does not say how many rows there are.
    simple("bad/other_rows.onnx", scores=4, output=("output0", F32, [1, "rows", BOXES]), metadata=NAMES)

    model = Model()
    half = model.add("Cast", "images", to=F32)
    yolov8(model, half)
    model.save("bad/float16.onnx", [("images", F16, [1, 3, HEIGHT, WIDTH])], [("output0", F32, [1, 6, BOXES])])

    model = Model()
    picture = model.add("Transpose", "images", perm=[0, 3, 1, 2])
    yolov8(model, picture)
    model.save("bad/channels_last.onnx", [("images", F32, [1, HEIGHT, WIDTH, 3])], [("output0", F32, [1, 6, BOXES])])

    model = Model()
    grey = model.add("Concat", "images", "images", "images", axis=1)
    yolov8(model, grey)
    model.save("bad/one_channel.onnx", [("images", F32, [1, 1, HEIGHT, WIDTH])], [("output0", F32, [1, 6, BOXES])])

    model = Model()
    yolov8(model, model.add("Add", "images", "offset"))
    shape = [1, 3, HEIGHT, WIDTH]
    model.save("bad/two_inputs.onnx", [("images", F32, shape), ("offset", F32, shape)],
               [("output0", F32, [1, 6, BOXES])])

    model = Model()
    table = yolov8(model, "images")
    model.add("Identity", table)
    model.add("Identity", table)
    model.save("bad/two_outputs.onnx", [("images", F32, shape)],
               [("output0", F32, [1, 6, BOXES]), ("output1", F32, [1, 6, BOXES])])

    model = Model()
    yolov8(model, "images")
    for weight in model.weights:
        if weight.raw_data:
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value="weights.bin")
            weight.ClearField("raw_data")
            break
    model.save("bad/external.onnx", [("images", F32, shape)], [("output0", F32, [1, 6, BOXES])])


simple("patches.onnx", metadata=NAMES)
simple("patches_batch.onnx", batch="batch")
end_to_end()
bytes_in()
# Where a patch is brighter than 0.9, its score and box are no numbers.
simple(
    "sometimes_nan.onnx",
    metadata=NAMES,
    change=lambda model, score: model.add("Sqrt", model.add("Sub", model.const(np.float32(0.9)), score)),
)
open_size()
crowd()
bad()
