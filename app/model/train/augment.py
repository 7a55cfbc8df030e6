"""From a decoded frame to a network input, plain as the product does it or varied for training."""

import cv2
import numpy as np

from network import HEIGHT, WIDTH

GREY = 114
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST)


def letterbox(frame: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> tuple[np.ndarray, float, int, int]:
    """Canvas uint8 [192, 320, 3], and where the frame lies in it: scale, left, top."""
    height, width = frame.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    inner = (round(width * scale), round(height * scale))
    left, top = (WIDTH - inner[0]) // 2, (HEIGHT - inner[1]) // 2
    return place(frame, inner, left, top, (GREY,) * 3, interpolation), scale, left, top


def place(frame: np.ndarray, size: tuple[int, int], left: int, top: int, padding, interpolation: int) -> np.ndarray:
    """The frame, resized and cut at the borders of the canvas."""
    resized = cv2.resize(frame, size, interpolation=interpolation)
    canvas = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    canvas[:] = padding
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + size[0], WIDTH), min(top + size[1], HEIGHT)
    canvas[y0:y1, x0:x1] = resized[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def varied(frame: np.ndarray, rows: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A training picture and its rows (class, left, top, right, bottom) in pixels of the canvas.

    Zoom and shift stand for other lenses, other interpolations and paddings for other preprocessing; a third of
    the pictures keeps the geometry of the product.
    """
    height, width = frame.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    zoomed = draw.random() > 0.33
    if zoomed:
        scale *= float(np.exp(draw.uniform(np.log(0.65), np.log(1.7))))
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    spare = (WIDTH - size[0], HEIGHT - size[1])
    if zoomed:
        left, top = (round(draw.uniform(min(s, 0) - 16, max(s, 0) + 16)) for s in spare)
    else:
        left, top = spare[0] // 2, spare[1] // 2
    padding = GREY if draw.random() < 0.7 else int(draw.integers(0, 256))
    canvas = place(frame, size, left, top, padding, INTERPOLATIONS[draw.integers(3)])

    boxes = rows[:, 1:5] * np.array([size[0], size[1]] * 2, np.float32)
    boxes[:, 2:] += boxes[:, :2]
    boxes += np.array([left, top] * 2, np.float32)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    boxes = boxes.clip(0, np.array([WIDTH, HEIGHT] * 2, np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides.min(1) >= 1.5) & (sides.prod(1) > 0.35 * area)
    rows = np.concatenate([rows[:, :1], boxes], 1)[keep]

    if draw.random() < 0.5:
        canvas = canvas[:, ::-1]
        rows[:, [1, 3]] = WIDTH - rows[:, [3, 1]]
    return coloured(np.ascontiguousarray(canvas), draw), rows.astype(np.float32)


def coloured(canvas: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and a cast; now and then blur or noise."""
    grey = np.full((3, 3), 1 / 3)
    saturation = 0.0 if draw.random() < 0.04 else draw.uniform(0.5, 1.4)
    gain = draw.uniform(0.75, 1.3)
    matrix = (saturation * np.eye(3) + (1 - saturation) * grey) * gain
    matrix *= draw.uniform(0.93, 1.07, (3, 1))
    shift = 128 * (1 - gain) + draw.uniform(-24, 24)
    canvas = cv2.transform(canvas, np.concatenate([matrix, np.full((3, 1), shift)], 1))
    kind = draw.random()
    if kind < 0.1:
        canvas = cv2.GaussianBlur(canvas, (3, 3), float(draw.uniform(0.3, 1.0)))
    elif kind < 0.2:
        noise = draw.normal(0, draw.uniform(2, 9), canvas.shape).astype(np.float32)
        canvas = (canvas + noise).clip(0, 255).astype(np.uint8)
    return canvas
