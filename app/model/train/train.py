"""Trains the detector; one thread, fixed seeds. Leaves the averaged weights in the given file after each epoch."""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import augment
import metrics
import scenes
from loss import detection_loss
from network import Detector

SEED = 20
PEAK_RATE, WEIGHT_DECAY = 4e-3, 0.02
AVERAGE = 0.998  # share of the old weights in the moving average, per step


def batch_of(samples: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images [B, 3, H, W] 0..1, and objects filled up to the same number: corners, classes, whether real."""
    images = torch.from_numpy(np.stack([canvas for canvas, _ in samples])).permute(0, 3, 1, 2)
    most = max(1, *(len(rows) for _, rows in samples))
    truth, classes = torch.zeros(len(samples), most, 4), torch.zeros(len(samples), most, dtype=torch.long)
    real = torch.zeros(len(samples), most, dtype=torch.bool)
    for i, (_, rows) in enumerate(samples):
        rows = torch.from_numpy(rows)
        truth[i, : len(rows)], classes[i, : len(rows)], real[i, : len(rows)] = rows[:, 1:], rows[:, 0].long(), True
    return images.float().div_(255).contiguous(memory_format=torch.channels_last), truth, classes, real


def parameter_groups(model: Detector) -> list[dict]:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def follow(average: Detector, model: Detector, step: int) -> None:
    keep = min(AVERAGE, (1 + step) / (10 + step))
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        mine.lerp_(theirs, 1 - keep) if mine.is_floating_point() else mine.copy_(theirs)


@torch.no_grad()
def validate(model: Detector, clips) -> np.ndarray:
    """mAP50 and mAP50-95 of each class on the clips of validation."""
    model.eval()
    pictures = []
    for _, frames, truth in clips:
        for frame, rows in zip(frames, truth, strict=True):
            canvas, scale, left, top = augment.letterbox(np.asarray(frame))
            image = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255
            boxes, logits = model(image)
            output = torch.cat([boxes, logits.sigmoid()], 1)[0].numpy()
            sides = np.array([frame.shape[1], frame.shape[0]] * 2, np.float32) * scale
            corners = rows[:, 1:5] * sides
            corners[:, 2:] += corners[:, :2]
            corners += np.array([left, top] * 2, np.float32)
            pictures.append((metrics.detections(output), np.concatenate([rows[:, :1], corners], 1)))
    values = [metrics.average_precision(pictures, label) for label in range(len(scenes.LABELS))]
    return np.array([[ap[0], ap.mean()] for ap in values])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path, help="file to write")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--rate", type=float, default=PEAK_RATE, help="peak learning rate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    draw = np.random.default_rng(SEED)

    clips = scenes.load(arguments.data / "train")
    samples = [(frames, i, rows) for _, frames, truth in clips for i, rows in enumerate(truth)]
    validation = scenes.load(arguments.data / "validation")
    model = Detector()
    if arguments.start:
        model.load_state_dict(torch.load(arguments.start))
    average = copy.deepcopy(model)
    model = model.to(memory_format=torch.channels_last)
    steps = arguments.epochs * (len(samples) // arguments.batch)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=arguments.rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.rate, total_steps=steps, pct_start=0.1, div_factor=20, final_div_factor=50
    )
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(samples)} frames, {steps} steps", flush=True)

    step, began = 0, time.process_time()
    for epoch in range(arguments.epochs):
        model.train()
        order = draw.permutation(len(samples))
        losses = []
        for at in range(0, len(order) - arguments.batch + 1, arguments.batch):
            chosen = [samples[i] for i in order[at : at + arguments.batch]]
            varied = [augment.varied(np.asarray(frames[i]), rows, draw) for frames, i, rows in chosen]
            images, truth, classes, real = batch_of(varied)
            with torch.autocast("cpu", torch.bfloat16):
                boxes, logits = model(images)
            loss, box, score = detection_loss(boxes, logits, model.centres, truth, classes, real)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            step += 1
            follow(average, model, step)
            losses.append((box.item(), score.item()))
            if step % 20 == 0:
                box, score = np.mean(losses[-20:], 0)
                print(f"  step {step}: box {box:.3f} score {score:.3f}", flush=True)
        torch.save(average.state_dict(), arguments.weights)
        line = f"epoch {epoch + 1}: {time.process_time() - began:.0f} s CPU, box/score {np.mean(losses, 0).round(3)}"
        if epoch % 3 == 0 or epoch + 1 == arguments.epochs:
            line += f", mAP50/mAP50-95 by class {validate(average, validation).round(3).tolist()}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
