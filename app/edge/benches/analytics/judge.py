"""Judges tracks and events against the scene's ground truth: `judge.py FOLDER PICTURES_PER_SECOND`.

Reads what `record.rs` wrote and prints Markdown tables. Needs motmetrics 1.4, and trackers 2.6 for the peer: ByteTrack
with the same boxes.

* A box and an object fit when they have the same label and overlap by an IoU of at least 0.5.
* "all": everything that the ground truth lists, which is whatever is at least 30 % visible, however small.
* "clear": at least 5 % of the picture's height and at least 60 % visible. The other objects are neither wanted nor
  wrong then: a track that fits one of them is left out of that picture, as in MOTChallenge.
* A track follows an object when most of its boxes fit that object.
"""

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import motmetrics
import numpy as np
import supervision
from trackers import ByteTrackTracker

PICTURE_HEIGHT = 720
CLEAR_HEIGHT, CLEAR_VISIBLE = 0.05, 0.6
MIN_IOU = 0.5
LABELS = ["person", "vehicle"]
# `lost_after_ms`: what is hidden for longer gets another track by design.
LOST_AFTER_S = 5.0
MIN_SCORE, CONFIRM_FRAMES = 0.5, 3
METRICS = [
    "num_unique_objects", "num_objects", "recall", "precision", "mota", "idf1", "num_switches", "mostly_tracked",
    "mostly_lost",
]  # fmt: skip


@dataclass
class Boxes:
    """Of one picture: an id, a label and whether it is clear for each row (left, top, width, height)."""

    ids: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    clear: list[bool] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)

    def only(self, wanted: list[bool]) -> "Boxes":
        kept = [n for n, want in enumerate(wanted) if want]
        pick = lambda values: [values[n] for n in kept]
        return Boxes(*map(pick, [self.ids, self.labels, self.scores, self.clear, self.rows]))


@dataclass
class Event:
    track: int
    label: str
    start_ms: int
    told_ms: int
    end_ms: int


@dataclass
class Camera:
    name: str
    times_ms: list[int]
    truth: list[Boxes]
    boxes: list[Boxes]
    tracks: list[Boxes]
    events: list[Event]


def read(folder: Path, name: str) -> Camera:
    rows = lambda what: [line.split(",") for line in (folder / f"{name}.{what}.csv").read_text().splitlines()]
    times_ms = [int(at_ms) for _, at_ms in rows("pictures")]

    def boxes(what: str) -> list[Boxes]:
        pictures = [Boxes() for _ in times_ms]
        for number, id, left, top, width, height, score, label, visible in rows(what):
            picture = pictures[int(number) - 1]
            picture.ids.append(int(id))
            picture.labels.append(label)
            picture.scores.append(float(score))
            is_tall = float(height) >= CLEAR_HEIGHT * PICTURE_HEIGHT
            picture.clear.append(is_tall and float(visible) >= CLEAR_VISIBLE)
            picture.rows.append([float(left), float(top), float(width), float(height)])
        return pictures

    events = [Event(int(track), label, *map(int, times)) for track, label, *times in rows("events")]
    return Camera(name, times_ms, boxes("truth"), boxes("boxes"), boxes("tracks"), events)


def byte_tracks(camera: Camera, fps: float) -> list[Boxes]:
    """What ByteTrack makes of the same boxes, set up like the daemon; a tracker for each label."""
    pictures = [Boxes() for _ in camera.boxes]
    for at, label in enumerate(LABELS):
        tracker = ByteTrackTracker(
            lost_track_buffer=round(LOST_AFTER_S * 30),  # counted at 30 pictures per second
            frame_rate=fps,
            track_activation_threshold=MIN_SCORE,
            high_conf_det_threshold=MIN_SCORE,
            minimum_consecutive_frames=CONFIRM_FRAMES,
        )
        for picture, boxes in zip(pictures, camera.boxes):
            boxes = boxes.only([found == label for found in boxes.labels])
            rows = np.reshape(boxes.rows, (-1, 4)).astype(float)
            corners = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:]])
            found = supervision.Detections(xyxy=corners, confidence=np.array(boxes.scores, dtype=float))
            tracks = tracker.update(found)
            for id, (left, top, right, bottom) in zip(tracks.tracker_id, tracks.xyxy):
                if id >= 0:
                    picture.ids.append(int(id) * len(LABELS) + at)
                    picture.labels.append(label)
                    picture.scores.append(1.0)
                    picture.clear.append(False)
                    picture.rows.append([left, top, right - left, bottom - top])
    return pictures


def distances(truth: Boxes, tracks: Boxes) -> np.ndarray:
    """1 - IoU of each object with each track; NaN where they do not fit. (motmetrics' own needs NumPy 1.)"""
    a, b = np.reshape(truth.rows, (-1, 1, 4)), np.reshape(tracks.rows, (1, -1, 4))
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=2)
    iou = shared / (np.prod(a[..., 2:], axis=2) + np.prod(b[..., 2:], axis=2) - shared)
    labels = np.reshape(truth.labels, (-1, 1)) == np.reshape(tracks.labels, (1, -1))
    return np.where(labels & (iou >= MIN_IOU), 1 - iou, np.nan)


def pairs(truth: Boxes, tracks: Boxes) -> list[tuple[int, int]]:
    """The places of objects and tracks that fit, each at most once, with the best sum of overlaps."""
    table = distances(truth, tracks)
    if table.size == 0:
        return []
    rows, columns = motmetrics.lap.linear_sum_assignment(table)
    return [(r, c) for r, c in zip(rows, columns) if np.isfinite(table[r, c])]


def clear_only(truth: Boxes, tracks: Boxes) -> tuple[Boxes, Boxes]:
    unclear = {column for row, column in pairs(truth, tracks) if not truth.clear[row]}
    return truth.only(truth.clear), tracks.only([n not in unclear for n in range(len(tracks.ids))])


def accumulate(camera: Camera, clear: bool, labels: list[str]) -> motmetrics.MOTAccumulator:
    accumulator = motmetrics.MOTAccumulator()
    for number, (truth, tracks) in enumerate(zip(camera.truth, camera.tracks)):
        if clear:
            truth, tracks = clear_only(truth, tracks)
        truth = truth.only([label in labels for label in truth.labels])
        tracks = tracks.only([label in labels for label in tracks.labels])
        accumulator.update(truth.ids, tracks.ids, distances(truth, tracks), frameid=number)
    return accumulator


def tracks_table(cameras: list[Camera], fps: float) -> str:
    lines = [
        "| tracker | which | label | objects | boxes | recall | precision | MOTA | IDF1 | id switches | per object "
        f"| of these after > {LOST_AFTER_S:.0f} s unseen | mostly tracked | mostly lost |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    peer = [replace(camera, tracks=byte_tracks(camera, fps)) for camera in cameras]
    trackers = {"kvs-edge": cameras, "ByteTrack": peer}
    host = motmetrics.metrics.create()
    for tracker, clear in [(tracker, clear) for tracker in trackers for clear in [False, True]]:
        cameras = trackers[tracker]
        for labels in [LABELS, *([label] for label in LABELS)]:
            judged = [accumulate(camera, clear, labels) for camera in cameras]
            names = [camera.name for camera in cameras]
            figures = host.compute_many(judged, names=names, metrics=METRICS, generate_overall=True)
            kinds = [("all", "OVERALL")]
            if clear and labels == LABELS and tracker == "kvs-edge":
                kinds += [(name, name) for name in names]
            for name, row in kinds:
                f = figures.loc[row]
                chosen = [n for n in range(len(names)) if row in ("OVERALL", names[n])]
                late = sum(switches_after_long(judged[n], cameras[n]) for n in chosen)
                lines.append(
                    f"| {tracker} | {'clear' if clear else 'all'}{'' if name == 'all' else ', ' + name} "
                    f"| {'both' if labels == LABELS else labels[0]} "
                    f"| {f.num_unique_objects:.0f} | {f.num_objects:.0f} | {f.recall:.3f} | {f.precision:.3f} "
                    f"| {f.mota:.3f} | {f.idf1:.3f} | {f.num_switches:.0f} "
                    f"| {f.num_switches / max(f.num_unique_objects, 1):.3f} | {late} "
                    f"| {f.mostly_tracked:.0f} | {f.mostly_lost:.0f} |"
                )
    return "\n".join(lines)


def switches_after_long(accumulator: motmetrics.MOTAccumulator, camera: Camera) -> int:
    """Switches of objects that had no track for longer than a track outlives its object."""
    seen_ms: dict[float, int] = {}
    late = 0
    events = accumulator.mot_events.reset_index()
    for number, kind, object_id in zip(events.FrameId, events.Type, events.OId):
        at_ms = camera.times_ms[int(number)]
        if kind == "SWITCH":
            late += at_ms - seen_ms[object_id] > 1000 * LOST_AFTER_S
        if kind in ("MATCH", "SWITCH"):
            seen_ms[object_id] = at_ms
    return late


def events_table(cameras: list[Camera], fps: float) -> str:
    lines = [
        "| label | objects clear for >= 1 s | found | recall | events | right | precision | events per object found "
        "| clear to `new`, p50 ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    missed = []
    for labels in [LABELS, *([label] for label in LABELS)]:
        objects, found, events, right, shared, delays = 0, 0, 0, 0, 0, []
        for camera in cameras:
            followed = follow(camera)
            # In pictures: those in which the object is clear.
            clear = defaultdict(list)
            for number, truth in enumerate(camera.truth):
                for id, label, is_clear in zip(truth.ids, truth.labels, truth.clear):
                    if is_clear and label in labels:
                        clear[id].append(number)
            wanted = {id for id, pictures in clear.items() if len(pictures) >= fps}
            of_object = defaultdict(list)
            for event in (event for event in camera.events if event.label in labels):
                events += 1
                if followed.get(event.track) is not None:
                    right += 1
                    of_object[followed[event.track]].append(event)
            objects += len(wanted)
            for id in sorted(wanted):
                if of_object[id]:
                    found += 1
                    shared += len(of_object[id])
                    first = min(event.told_ms for event in of_object[id])
                    delays.append(first - camera.times_ms[clear[id][0]])
                elif labels == LABELS:
                    missed.append(f"{camera.name} object {id}, clear in {len(clear[id])} pictures")
        lines.append(
            f"| {'both' if labels == LABELS else labels[0]} | {objects} | {found} | {found / max(objects, 1):.3f} "
            f"| {events} | {right} | {right / max(events, 1):.3f} | {shared / max(found, 1):.3f} "
            f"| {median(delays) if delays else 0:.0f} |"
        )
    return "\n".join(lines + [""] + [f"No event of its own: {text}." for text in missed])


def follow(camera: Camera) -> dict[int, int | None]:
    """By track: the object that most of its boxes fit, or None."""
    boxes, fits = Counter(), defaultdict(Counter)
    for truth, tracks in zip(camera.truth, camera.tracks):
        boxes.update(tracks.ids)
        for row, column in pairs(truth, tracks):
            fits[tracks.ids[column]][truth.ids[row]] += 1
    followed = {}
    for track, count in boxes.items():
        best = fits[track].most_common(1)
        followed[track] = best[0][0] if best and 2 * best[0][1] > count else None
    return followed


def main() -> None:
    folder, fps = Path(sys.argv[1]), float(sys.argv[2])
    names = sorted(path.name.removesuffix(".truth.csv") for path in folder.glob("*.truth.csv"))
    cameras = [read(folder, name) for name in names]
    minutes = sum(camera.times_ms[-1] - camera.times_ms[0] for camera in cameras) / 60_000
    pictures = sum(len(camera.times_ms) for camera in cameras)
    print(f"{minutes:.1f} camera-minutes, {pictures} pictures, {pictures / minutes / 60:.2f} per second and camera.\n")
    print(tracks_table(cameras, fps) + "\n")
    print(events_table(cameras, fps) + "\n")


main()
