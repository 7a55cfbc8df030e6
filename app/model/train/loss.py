"""Which cell learns which object, and how wrong it was: task-aligned assignment (Feng et al., TOOD, 2021)."""

import torch
from torch import Tensor, nn

TOP = 8  # cells that learn one object
ALPHA, BETA = 0.5, 6.0
BOX_GAIN, SCORE_GAIN = 7.5, 0.5
# Objects narrower than this also take the cells beside them, or those between two cells would have none.
REACH = 5.0


def corners(boxes: Tensor) -> Tensor:
    """Centre and size to left, top, right, bottom; the last axis has 4 entries."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def overlap(a: Tensor, b: Tensor, generalised: bool = False) -> Tensor:
    """(Generalised) intersection over union of corner boxes, with broadcasting."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = lambda box: (box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1)
    union = area(a) + area(b) - shared + 1e-7
    iou = shared / union
    if not generalised:
        return iou
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1) + 1e-7
    return iou - (hull - union) / hull


@torch.no_grad()
def assign(boxes: Tensor, scores: Tensor, centres: Tensor, truth: Tensor, classes: Tensor, real: Tensor):
    """For each cell the object that it learns and the score that it should give.

    boxes [B, N, 4] and truth [B, M, 4] as corners, scores [B, N, C], centres [N, 2], classes [B, M],
    real [B, M] (false for filling). Returns object [B, N] and target [B, N], 0 for background.
    """
    middle, half = (truth[..., :2] + truth[..., 2:]) / 2, (truth[..., 2:] - truth[..., :2]) / 2
    away = (centres[None, None] - middle[:, :, None]).abs()
    inside = (away < half.clamp(min=REACH)[:, :, None]).all(-1) & real[:, :, None]  # [B, M, N]
    iou = overlap(truth[:, :, None], boxes[:, None]) * inside
    given = scores.transpose(1, 2).gather(1, classes[:, :, None].expand(-1, -1, scores.shape[1]))
    metric = given.pow(ALPHA) * iou.pow(BETA) * inside
    best = metric.topk(TOP, -1)
    chosen = torch.zeros_like(metric).scatter_(-1, best.indices, 1.0).bool() & inside & (metric > 1e-12)
    # A cell that several objects want goes to the one that it overlaps most.
    iou_chosen = iou.masked_fill(~chosen, -1.0)
    object_of = iou_chosen.argmax(1)
    positive = iou_chosen.amax(1) > 0
    mine = positive[:, None] & (torch.arange(truth.shape[1])[None, :, None] == object_of[:, None])
    metric = metric * mine
    # The best cell of an object should say how well it overlaps, the others less.
    scale = (iou * mine).amax(-1, keepdim=True) / (metric.amax(-1, keepdim=True) + 1e-12)
    target = (metric * scale).amax(1)
    return object_of, target


def detection_loss(boxes: Tensor, logits: Tensor, centres: Tensor, truth: Tensor, classes: Tensor, real: Tensor):
    """boxes [B, 4, N], logits [B, C, N], centres [1, 2, N] as the network has them; the rest as in `assign`."""
    boxes, logits = corners(boxes.transpose(1, 2)), logits.transpose(1, 2)
    object_of, target = assign(boxes.detach(), logits.detach().sigmoid(), centres[0].T, truth, classes, real)
    positive = target > 0
    wanted = torch.zeros_like(logits)
    wanted.scatter_(2, classes.gather(1, object_of)[..., None], target[..., None])
    total = target.sum().clamp(min=1.0)
    score = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / total
    aims = truth.gather(1, object_of[..., None].expand(-1, -1, 4))
    giou = overlap(boxes[positive], aims[positive], generalised=True)
    box = ((1.0 - giou) * target[positive]).sum() / total
    return BOX_GAIN * box + SCORE_GAIN * score, box.detach(), score.detach()
