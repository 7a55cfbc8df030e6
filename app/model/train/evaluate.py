"""Measures the exported model on the test clips, by onnxruntime and with the preprocessing of the product."""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime

import augment
import metrics
import scenes


def run(session: onnxruntime.InferenceSession, frame: np.ndarray, rows: np.ndarray):
    """Detections and truth of one frame, both in pixels of the frame; and the CPU time of the network in ms."""
    canvas, scale, left, top = augment.letterbox(frame)
    image = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) / 255
    began = time.thread_time()
    output = session.run(["output0"], {"images": image})[0][0]
    took = (time.thread_time() - began) * 1e3
    found = metrics.detections(output)
    height, width = frame.shape[:2]
    limits = np.array([width, height] * 2, np.float32)
    found[:, 2:6] = ((found[:, 2:6] - np.array([left, top] * 2)) / scale).clip(0, limits)
    truth = rows.copy()
    truth[:, 1:5] *= limits
    truth[:, 3:5] += truth[:, 1:3]
    return found, truth, took


def report(name: str, pictures: list) -> None:
    truth = np.concatenate([rows for _, rows in pictures])
    values = [metrics.average_precision(pictures, label) for label in range(len(scenes.LABELS))]
    counts = [int((truth[:, 0] == label).sum()) for label in range(len(scenes.LABELS))]
    cells = [name, str(len(pictures)), "/".join(map(str, counts))]
    cells += [f"{ap[0]:.3f}" for ap in values] + [f"{np.mean([ap[0] for ap in values]):.3f}"]
    cells += [f"{ap.mean():.3f}" for ap in values] + [f"{np.mean([ap.mean() for ap in values]):.3f}"]
    print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("onnx", type=Path)
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(arguments.onnx, options, providers=["CPUExecutionProvider"])
    groups, times = defaultdict(list), []
    for name, frames, truth in scenes.load(arguments.data / "test"):
        for frame, rows in zip(frames, truth, strict=True):
            found, objects, took = run(session, np.asarray(frame), rows)
            groups[name.rsplit("-", 1)[0]].append((found, objects))
            times.append(took)

    labels = scenes.LABELS
    head = ["clips", "frames", "boxes " + "/".join(labels)]
    for measure in ("mAP50", "mAP50-95"):
        head += [f"{measure} {label}" for label in labels] + [measure]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    report("all bitrates", [picture for name in scenes.TEST_BITRATES for picture in groups[name]])
    for name, kbps in scenes.TEST_BITRATES.items():
        report(f"{name} ({kbps} kbit/s)", groups[name])
    for name in sorted(set(groups) - set(scenes.TEST_BITRATES)):
        report(name, groups[name])
    operating_point([picture for name in scenes.TEST_BITRATES for picture in groups[name]])
    print(f"\nnetwork alone, one thread: median {np.median(times):.2f} ms CPU per frame")


def operating_point(pictures: list) -> None:
    """Precision and recall at IoU 0.5 for some score thresholds."""
    print("\n| score at least | " + " | ".join(f"precision, recall {label}" for label in scenes.LABELS) + " |")
    print("|" + "---|" * (1 + len(scenes.LABELS)))
    for least in (0.15, 0.25, 0.35, 0.5):
        cells = []
        for label in range(len(scenes.LABELS)):
            right = wrong = objects = 0
            for found, truth in pictures:
                found = found[(found[:, 0] == label) & (found[:, 1] >= least)]
                truth = truth[truth[:, 0] == label, 1:5]
                objects += len(truth)
                free = np.ones(len(truth), bool)
                for row in metrics.overlap(found[:, 2:6], truth):
                    best = int(np.argmax(np.where(free, row, -1.0))) if free.any() else -1
                    if best >= 0 and row[best] >= 0.5:
                        free[best] = False
                        right += 1
                    else:
                        wrong += 1
            cells.append(f"{right / max(right + wrong, 1):.3f}, {right / objects:.3f}")
        print(f"| {least} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
