"""The detector: a small CSP backbone, a PAN neck and one anchor-free head per stride (8, 16, 32).

Only plain convolutions, ReLU, max pooling, nearest upsampling and a few elementwise operations, so that every
runtime and accelerator has fast kernels for it.
"""

import torch
from torch import Tensor, nn

WIDTH, HEIGHT = 320, 192
STRIDES = (8, 16, 32)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
        nn.ReLU(inplace=True),
    )


class Bottleneck(nn.Module):
    def __init__(self, width: int, residual: bool):
        super().__init__()
        self.body = nn.Sequential(conv(width, width, 3), conv(width, width, 3))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class Csp(nn.Module):
    """Half of the channels pass by, the other half goes through the bottlenecks; all stages are joined again."""

    def __init__(self, inputs: int, outputs: int, depth: int, residual: bool):
        super().__init__()
        half = outputs // 2
        self.bypass = conv(inputs, half)
        self.enter = conv(inputs, half)
        self.blocks = nn.ModuleList(Bottleneck(half, residual) for _ in range(depth))
        self.join = conv((2 + depth) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        stages = [self.bypass(x), self.enter(x)]
        for block in self.blocks:
            stages.append(block(stages[-1]))
        return self.join(torch.cat(stages, 1))


class PoolPyramid(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.enter = conv(width, width // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.join = conv(width * 2, width)

    def forward(self, x: Tensor) -> Tensor:
        stages = [self.enter(x)]
        for _ in range(3):
            stages.append(self.pool(stages[-1]))
        return self.join(torch.cat(stages, 1))


class Head(nn.Module):
    """Raw values [B, 4 + classes, H, W]: offset of the centre and size before softplus in strides, then logits."""

    def __init__(self, inputs: int, classes: int, width: int = 24):
        super().__init__()
        self.box = nn.Sequential(conv(inputs, width, 3), nn.Conv2d(width, 4, 1))
        self.score = nn.Sequential(conv(inputs, width, 3), nn.Conv2d(width, classes, 1))
        nn.init.constant_(self.score[-1].bias, -4.6)  # a score of 0.01 before anything is learnt

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.box(x), self.score(x)], 1)


class Detector(nn.Module):
    def __init__(self, classes: int = 2):
        super().__init__()
        self.classes = classes
        self.to_8 = nn.Sequential(
            conv(3, 12, 3, 2), conv(12, 24, 3, 2), Csp(24, 24, 1, True), conv(24, 48, 3, 2), Csp(48, 48, 2, True)
        )
        self.to_16 = nn.Sequential(conv(48, 80, 3, 2), Csp(80, 80, 2, True))
        self.to_32 = nn.Sequential(conv(80, 96, 3, 2), Csp(96, 96, 1, True), PoolPyramid(96), conv(96, 48))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge_16 = Csp(48 + 80, 48, 1, False)
        self.merge_8 = Csp(48 + 48, 48, 1, False)
        self.down_16 = conv(48, 48, 3, 2)
        self.out_16 = Csp(48 + 48, 48, 1, False)
        self.down_32 = conv(48, 48, 3, 2)
        self.out_32 = Csp(48 + 48, 48, 1, False)
        self.heads = nn.ModuleList(Head(48, classes) for _ in STRIDES)
        centres, strides = anchors()
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`images` [B, 3, 192, 320], RGB 0..1. Boxes [B, 4, N] (centre and size in pixels) and logits [B, classes, N]."""
        at_8 = self.to_8(images)
        at_16 = self.to_16(at_8)
        at_32 = self.to_32(at_16)
        at_16 = self.merge_16(torch.cat([self.up(at_32), at_16], 1))
        at_8 = self.merge_8(torch.cat([self.up(at_16), at_8], 1))
        at_16 = self.out_16(torch.cat([self.down_16(at_8), at_16], 1))
        at_32 = self.out_32(torch.cat([self.down_32(at_16), at_32], 1))
        raw = [head(x).flatten(2) for head, x in zip(self.heads, (at_8, at_16, at_32), strict=True)]
        raw = torch.cat(raw, 2).float()
        offset, size, logits = raw.split([2, 2, self.classes], 1)
        centre = self.centres + offset * self.strides
        return torch.cat([centre, nn.functional.softplus(size) * self.strides], 1), logits


def anchors() -> tuple[Tensor, Tensor]:
    """Centres [1, 2, N] and strides [1, 1, N] of all cells, in pixels and in the order of the output."""
    centres, strides = [], []
    for stride in STRIDES:
        ys = (torch.arange(HEIGHT // stride, dtype=torch.float32) + 0.5) * stride
        xs = (torch.arange(WIDTH // stride, dtype=torch.float32) + 0.5) * stride
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()]))
        strides.append(torch.full((1, x.numel()), float(stride)))
    return torch.cat(centres, 1)[None], torch.cat(strides, 1)[None]
