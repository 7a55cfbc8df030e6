"""Judges tracks of persons against ground truth: `judge.py FOLDER NAME=PICTURES_PER_SECOND=WIDTHxHEIGHT ...`.

Reads `NAME.{boxes,tracks,truth}.txt` in MOTChallenge's columns (picture, id, left, top, width, height, score or whether it
counts, and in the truth of MOT16 and later a class, 1: person) and prints a Markdown table. Needs motmetrics 1.4, and
trackers 2.6 for the peer: ByteTrack with the same boxes, and with those from a score of 0.5 on.

* Only pictures that have boxes are judged; all boxes are cut at the edge of the picture, as detectors' boxes here are.
* A track fits a person when they overlap by an IoU of at least 0.5. What the truth says not to count (a flag, or a class
  like a person who sits in a car) is neither wanted nor wrong.
"""

import sys
from pathlib import Path

import motmetrics
import numpy as np
import supervision
from trackers import ByteTrackTracker

MIN_IOU = 0.5
# The daemon's `lost_after_ms`, `min_score` and `confirm_frames`.
LOST_AFTER_S, MIN_SCORE, CONFIRM_FRAMES = 5.0, 0.5, 3
PERSON, LIKE_PERSON = 1, (2, 7, 8, 12)
METRICS = ["num_unique_objects", "num_objects", "recall", "precision", "mota", "idf1", "num_switches"]

Rows = dict[int, np.ndarray]  # by picture: id, left, top, width, height, score


def read(file: Path) -> Rows:
    rows: dict[int, list[list[float]]] = {}
    for line in file.read_text().splitlines():
        fields = [float(field) for field in line.split(",")]
        if "truth" in file.name and len(fields) == 9:
            kind = int(fields[7])
            if kind != PERSON and kind not in LIKE_PERSON:
                continue
            fields[6] = float(fields[6] == 1 and kind == PERSON)
        rows.setdefault(int(fields[0]), []).append(fields[1:7])
    return {picture: np.array(of_picture) for picture, of_picture in rows.items()}


def cut(rows: Rows, size: np.ndarray) -> Rows:
    def inside(boxes: np.ndarray) -> np.ndarray:
        begin, end = np.clip(boxes[:, 1:3], 0, size), np.clip(boxes[:, 1:3] + boxes[:, 3:5], 0, size)
        boxes = np.hstack([boxes[:, :1], begin, end - begin, boxes[:, 5:]])
        return boxes[(boxes[:, 3] > 0) & (boxes[:, 4] > 0)]

    return {picture: inside(boxes) for picture, boxes in rows.items()}


def byte_tracks(boxes: Rows, pictures: list[int], fps: float, least: float) -> Rows:
    tracker = ByteTrackTracker(
        lost_track_buffer=round(LOST_AFTER_S * 30),  # counted at 30 pictures per second
        frame_rate=fps,
        track_activation_threshold=MIN_SCORE,
        high_conf_det_threshold=MIN_SCORE,
        minimum_consecutive_frames=CONFIRM_FRAMES,
    )
    told = {}
    for picture in pictures:
        rows = boxes.get(picture, np.zeros((0, 6)))
        rows = rows[rows[:, 5] >= least]
        corners = np.hstack([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]])
        tracks = tracker.update(supervision.Detections(xyxy=corners, confidence=rows[:, 5]))
        begin, end = tracks.xyxy[:, :2], tracks.xyxy[:, 2:]
        ids = np.reshape(tracks.tracker_id, (-1, 1)).astype(float)
        rows = np.hstack([ids, begin, end - begin, np.ones_like(ids)])
        told[picture] = rows[rows[:, 0] >= 0]
    return told


def distances(truth: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """1 - IoU of each person with each track; NaN where they do not fit. (motmetrics' own needs NumPy 1.)"""
    a, b = truth[:, None, 1:5], tracks[None, :, 1:5]
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=2)
    iou = shared / (np.prod(a[..., 2:], axis=2) + np.prod(b[..., 2:], axis=2) - shared)
    return np.where(iou >= MIN_IOU, 1 - iou, np.nan)


def accumulate(truth: Rows, tracks: Rows, pictures: list[int]) -> motmetrics.MOTAccumulator:
    accumulator = motmetrics.MOTAccumulator()
    for picture in pictures:
        wanted, told = truth.get(picture, np.zeros((0, 6))), tracks.get(picture, np.zeros((0, 6)))
        table = distances(wanted, told)
        if table.size and not (wanted[:, 5] > 0).all():
            rows, columns = motmetrics.lap.linear_sum_assignment(table)
            drop = [c for r, c in zip(rows, columns) if np.isfinite(table[r, c]) and wanted[r, 5] <= 0]
            told = np.delete(told, drop, axis=0)
        wanted = wanted[wanted[:, 5] > 0]
        accumulator.update(wanted[:, 0].astype(int), told[:, 0].astype(int), distances(wanted, told), frameid=picture)
    return accumulator


def main() -> None:
    folder, names = Path(sys.argv[1]), [word.rsplit("=", 2) for word in sys.argv[2:]]
    trackers: dict[str, list[motmetrics.MOTAccumulator]] = {}
    for name, fps, side in names:
        boxes, tracks, truth = (read(folder / f"{name}.{what}.txt") for what in ["boxes", "tracks", "truth"])
        size = np.array([float(length) for length in side.split("x")])
        boxes, truth = cut(boxes, size), cut(truth, size)
        pictures = sorted(boxes)
        # Between those that have boxes, too.
        step = min(np.diff(pictures))
        pictures = list(range(pictures[0], pictures[-1] + 1, step))
        peers = {
            "kvs-edge": tracks,
            "ByteTrack, the same boxes": byte_tracks(boxes, pictures, float(fps), 0.0),
            "ByteTrack, boxes from 0.5 on": byte_tracks(boxes, pictures, float(fps), MIN_SCORE),
        }
        for tracker, told in peers.items():
            trackers.setdefault(tracker, []).append(accumulate(truth, told, pictures))
    print("| sequence | tracker | persons | boxes | recall | precision | MOTA | IDF1 | id switches |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    host = motmetrics.metrics.create()
    only = [name for name, *_ in names]
    for tracker, judged in trackers.items():
        figures = host.compute_many(judged, names=only, metrics=METRICS, generate_overall=len(only) > 1)
        for name, f in figures.iterrows():
            print(
                f"| {name} | {tracker} | {f.num_unique_objects:.0f} | {f.num_objects:.0f} | {f.recall:.3f} "
                f"| {f.precision:.3f} | {f.mota:.3f} | {f.idf1:.3f} | {f.num_switches:.0f} |"
            )


main()
