"""Renders, encodes and decodes the pictures for training and evaluation.

The scenes come from camera-sim (`app/camera-sim/examples/clips.rs`), pass through real H.264 and are decoded by
ffmpeg, so that the network only ever sees what a camera would send. Seeds 0..99 belong to the product's own
cameras in demo and tests and are never used here.

One folder per clip: `frames.npy`, uint8 [n, height, width, 3] RGB, and `truth.npy`, float32 [m, 7] with
frame, class, left, top, width, height (parts of the picture), visible part.
"""

import argparse
import json
import math
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LABELS = ["person", "vehicle"]
LOOP_SECONDS = 20

# Kilobits per second at 1280x720 and 10 pictures per second.
TEST_BITRATES = {"low": 120, "medium": 1000, "high": 3000}


@dataclass
class ClipPlan:
    name: str
    seed: int
    size: tuple[int, int]
    fps: int
    kbps: int
    gop: int
    step: int  # every so many pictures one is kept


def train_plan(count: int) -> list[ClipPlan]:
    """Seeds 1000 and up: 25 pictures per clip, from nearly clean to poor; from seed 1300 on, hardly bearable."""
    plans = []
    for seed in range(1000, 1000 + count):
        draw = random.Random(seed)
        size = draw.choices([(640, 360), (960, 540), (640, 480), (352, 288)], [80, 8, 8, 4])[0]
        area = size[0] * size[1] / (640 * 360)
        worst, best = (50, 1000) if seed < 1300 else (16, 60)
        kbps = math.exp(draw.uniform(math.log(worst), math.log(best))) * area
        plans.append(ClipPlan(f"{seed}", seed, size, 5, max(16, round(kbps)), draw.choice([5, 25, 50]), 4))
    return plans


def validation_plan() -> list[ClipPlan]:
    """Seeds 8000 and up: watched while training, never reported."""
    return [ClipPlan(f"{seed}", seed, (640, 360), 5, 150, 25, 10) for seed in range(8000, 8012)]


def test_plan() -> list[ClipPlan]:
    """Seeds 9000 and up: 20 scenes at three bitrates, and 10 others at three picture sizes."""
    plans = []
    for seed in range(9000, 9020):
        for name, kbps in TEST_BITRATES.items():
            plans.append(ClipPlan(f"{name}-{seed}", seed, (1280, 720), 10, kbps, 20, 10))
    for seed in range(9020, 9030):
        for size in [(640, 360), (1280, 720), (1920, 1080)]:
            kbps = round(TEST_BITRATES["medium"] * size[0] * size[1] / (1280 * 720))
            plans.append(ClipPlan(f"{size[0]}x{size[1]}-{seed}", seed, size, 10, kbps, 20, 20))
    return plans


def make(plan: ClipPlan, folder: Path, renderer: Path) -> None:
    done = folder / plan.name
    if done.exists():
        return
    work = folder / f".{plan.name}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    width, height = plan.size
    line = f"{work} {plan.seed} {width}x{height} {plan.fps} {LOOP_SECONDS} {plan.kbps} {plan.gop}\n"
    subprocess.run([renderer], input=line, text=True, check=True, stdout=subprocess.DEVNULL)
    (clip,) = work.glob("h264-*")
    frames = decode(clip / "video.h264", width, height, plan.step)
    kept = range(0, plan.fps * LOOP_SECONDS, plan.step)
    if len(frames) != len(kept):
        raise RuntimeError(f"{clip}: {len(frames)} pictures decoded, expected {len(kept)}")
    rows = []
    for text in (clip / "truth.jsonl").read_text().splitlines():
        truth = json.loads(text)
        if truth["frame"] % plan.step == 0:
            frame = truth["frame"] // plan.step
            for o in truth["objects"]:
                box = [o[key] for key in ("x", "y", "w", "h", "visible")]
                rows.append([frame, LABELS.index(o["label"]), *box])
    np.save(work / "frames.npy", frames)
    np.save(work / "truth.npy", np.array(rows, np.float32).reshape(-1, 7))
    shutil.rmtree(clip)
    work.rename(done)


def decode(video: Path, width: int, height: int, step: int) -> np.ndarray:
    """Every `step`th picture of an Annex B file as RGB."""
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-f", "h264", "-i", str(video)]
    command += ["-vf", f"select=not(mod(n\\,{step}))", "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def load(folder: Path) -> list[tuple[str, np.ndarray, list[np.ndarray]]]:
    """Name, frames and per frame the rows (class, left, top, width, height) of all clips, in the order of names."""
    clips = []
    for clip in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        frames = np.load(clip / "frames.npy", mmap_mode="r")
        truth = np.load(clip / "truth.npy")
        clips.append((clip.name, frames, [truth[truth[:, 0] == i, 1:6] for i in range(len(frames))]))
    if not clips:
        raise FileNotFoundError(f"no clips in {folder}; render them with scenes.py")
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder to write to, about 11 GB")
    parser.add_argument("--renderer", type=Path, required=True, help="the built example `clips` of camera-sim")
    parser.add_argument("--train-clips", type=int, default=360)
    arguments = parser.parse_args()
    sets = {"validation": validation_plan(), "test": test_plan(), "train": train_plan(arguments.train_clips)}
    for name, plans in sets.items():
        for plan in plans:
            make(plan, arguments.data / name, arguments.renderer)
        print(f"{name}: {len(plans)} clips", flush=True)


if __name__ == "__main__":
    main()
