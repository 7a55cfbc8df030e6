"""Writes the trained weights as ONNX in the layout of YOLOv8 exports, with batch normalisation folded.

Input `images` FP32 [batch, 3, 192, 320], RGB 0..1. Output `output0` FP32 [batch, 4 + 2, 1260]: centre and size in
input pixels, then one score 0..1 per class.
"""

import argparse
import hashlib
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import Tensor, nn

import scenes
from network import HEIGHT, STRIDES, WIDTH, Detector


class Exported(nn.Module):
    def __init__(self, model: Detector):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        boxes, logits = self.model(images)
        return torch.cat([boxes, logits.sigmoid()], 1)


def fold(model: nn.Module) -> None:
    """Moves each batch normalisation into the convolution before it."""
    for module in model.modules():
        for i in range(len(module) - 1 if isinstance(module, nn.Sequential) else 0):
            if isinstance(module[i], nn.Conv2d) and isinstance(module[i + 1], nn.BatchNorm2d):
                module[i] = nn.utils.fuse_conv_bn_eval(module[i], module[i + 1])
                module[i + 1] = nn.Identity()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("onnx", type=Path, help="file to write; the labels go beside it")
    parser.add_argument("--batch", type=int, help="fixed batch size; without it the batch is dynamic")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    model = Detector()
    model.load_state_dict(torch.load(arguments.weights))
    model.eval()
    image = torch.rand(arguments.batch or 2, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        before = Exported(model)(image)
        fold(model)
        after = Exported(model)(image)
    if (before - after).abs().max() > 0.01:
        raise RuntimeError("folding changed the output")
    dynamic = None if arguments.batch else {"images": {0: "batch"}, "output0": {0: "batch"}}
    torch.onnx.export(
        Exported(model),
        (image,),
        arguments.onnx,
        input_names=["images"],
        output_names=["output0"],
        opset_version=17,
        dynamic_axes=dynamic,
        dynamo=False,
    )
    slim = onnxslim.slim(onnx.load(arguments.onnx))
    slim.producer_name, slim.producer_version, slim.doc_string = "kvs-edge app/model/train", "", ""
    names = {i: label for i, label in enumerate(scenes.LABELS)}
    facts = {
        "names": str(names),
        "stride": str(max(STRIDES)),
        "imgsz": str([HEIGHT, WIDTH]),
        "task": "detect",
        "license": "Apache-2.0 OR MIT",
    }
    onnx.helper.set_model_props(slim, facts)
    onnx.checker.check_model(slim, full_check=True)
    onnx.save(slim, arguments.onnx)
    arguments.onnx.with_suffix(".labels").write_text("".join(f"{label}\n" for label in scenes.LABELS))
    digest = hashlib.sha256(arguments.onnx.read_bytes()).hexdigest()
    print(f"{arguments.onnx}: {arguments.onnx.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
