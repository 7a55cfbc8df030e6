"""Suppression of duplicates and average precision in the COCO way (101 points, IoU 0.50:0.05:0.95, 100 boxes)."""

import numpy as np

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_BOXES = 100
SUPPRESS_IOU = 0.6
MIN_SCORE = 0.001


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of corner boxes, [n, 4] and [m, 4] to [n, m]."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(box[:, 2:] - box[:, :2]).prod(-1) for box in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def detections(output: np.ndarray) -> np.ndarray:
    """One picture's output [4 + classes, N] to rows (class, score, left, top, right, bottom), best first."""
    found = []
    for label, scores in enumerate(output[4:]):
        picked = np.flatnonzero(scores > MIN_SCORE)
        picked = picked[np.argsort(-scores[picked], kind="stable")][:500]
        centre, half = output[:2, picked].T, output[2:4, picked].T / 2
        boxes = np.concatenate([centre - half, centre + half], 1)
        ious = overlap(boxes, boxes)
        alive = np.ones(len(picked), bool)
        for i in range(len(picked)):
            if alive[i]:
                alive[i + 1 :] &= ious[i, i + 1 :] <= SUPPRESS_IOU
        rows = np.column_stack([np.full(alive.sum(), label), scores[picked][alive], boxes[alive]])
        found.append(rows)
    rows = np.concatenate(found)
    return rows[np.argsort(-rows[:, 1], kind="stable")][:MAX_BOXES]


def average_precision(pictures: list[tuple[np.ndarray, np.ndarray]], label: int) -> np.ndarray:
    """AP at each of IOUS for one class, from (detections, truth rows of class and corners); nan without truth."""
    scores, hits, objects = [], [], 0
    for found, truth in pictures:
        found, truth = found[found[:, 0] == label], truth[truth[:, 0] == label, 1:5]
        objects += len(truth)
        scores.append(found[:, 1])
        hit = np.zeros((len(IOUS), len(found)), bool)
        if len(truth) and len(found):
            ious = overlap(found[:, 2:6], truth)
            for level, limit in enumerate(IOUS):
                free = np.ones(len(truth), bool)
                for i, row in enumerate(ious):
                    best = np.argmax(np.where(free, row, -1.0))
                    if free[best] and row[best] >= limit:
                        free[best] = False
                        hit[level, i] = True
        hits.append(hit)
    if objects == 0:
        return np.full(len(IOUS), np.nan)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hit = np.concatenate(hits, 1)[:, order]
    right = hit.cumsum(1)
    recall, precision = right / objects, right / np.arange(1, hit.shape[1] + 1)
    result = np.zeros(len(IOUS))
    for level in range(len(IOUS)):
        envelope = np.maximum.accumulate(precision[level][::-1])[::-1]
        at = np.searchsorted(recall[level], RECALLS, side="left")
        result[level] = np.where(at < len(envelope), np.append(envelope, 0.0)[at], 0.0).mean()
    return result
