"""Reads a TensorFlow.js graph model: one JSON file, one file of weights."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np


class ModelError(Exception):
    """What is wrong with a model: where, and found against expected."""


@dataclass(frozen=True)
class Node:
    name: str
    op: str
    inputs: list[str]
    attributes: dict[str, Any]

    def integers(self, key: str) -> list[int]:
        return [int(value) for value in self.attributes.get(key, {}).get("list", {}).get("i", [])]

    def number(self, key: str) -> float:
        try:
            return float(self.attributes[key]["f"])
        except KeyError:
            raise ModelError(f"{self.op} {self.name} has no attribute {key}") from None

    def text(self, key: str) -> str:
        return base64.b64decode(self.attributes.get(key, {}).get("s", "")).decode()

    def flag(self, key: str) -> bool:
        return bool(self.attributes.get(key, {}).get("b", False))


@dataclass(frozen=True)
class Graph:
    nodes: dict[str, Node]
    constants: dict[str, np.ndarray]

    def node(self, name: str) -> Node:
        try:
            return self.nodes[name]
        except KeyError:
            raise ModelError(f"the graph has no node {name}") from None

    def constant(self, name: str) -> np.ndarray:
        try:
            return self.constants[name]
        except KeyError:
            raise ModelError(f"{name} is no constant, expected one") from None

    def readers(self, name: str) -> list[Node]:
        """The nodes that read an output of this one."""
        return [node for node in self.nodes.values() if any(i.split(":")[0] == name for i in node.inputs)]


def read(topology: bytes, weights: bytes) -> Graph:
    try:
        document = json.loads(topology)
        listed = [
            Node(
                node["name"],
                node["op"],
                [name for name in node.get("input", []) if not name.startswith("^")],
                node.get("attr", {}),
            )
            for node in document["modelTopology"]["node"]
        ]
        manifest = [weight for group in document["weightsManifest"] for weight in group["weights"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"this is no TensorFlow.js graph model: {error!r}") from None
    constants: dict[str, np.ndarray] = {}
    offset = 0
    for weight in manifest:
        kind = stored_as(weight)
        count = int(np.prod(weight["shape"], dtype=np.int64))
        end = offset + count * kind.itemsize
        if end > len(weights):
            name = weight["name"]
            raise ModelError(f"the weights end at byte {len(weights)}, within {name}, expected at least {end} bytes")
        values = np.frombuffer(weights, kind, count, offset).reshape(weight["shape"])
        constants[weight["name"]] = values.astype(np.float32) if kind.kind == "f" else values
        offset = end
    if offset != len(weights):
        raise ModelError(f"{len(weights)} bytes of weights, expected {offset}")
    return Graph({node.name: node for node in listed}, constants)


def stored_as(weight: dict[str, Any]) -> np.dtype:
    kinds = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}
    kind = weight.get("quantization", weight)["dtype"]
    if kind not in kinds:
        raise ModelError(f"{weight['name']} is stored as {kind}, expected one of {', '.join(kinds)}")
    return np.dtype(kinds[kind])
