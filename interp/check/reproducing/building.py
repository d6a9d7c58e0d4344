"""A living module as an expression that builds it again: torch's own by their constructors, others part by part."""

from __future__ import annotations

import inspect
import json

import torch
from torch import Tensor, nn

from headwise.interp.check.reproducing.sources import Sources, is_theirs
from headwise.interp.check.reproducing.spelling import Unspelled, tensor
from headwise.interp.check.state import random_streams_kept

PUT = '''
def put(cls, **parts):
    """An instance of ``cls`` made of these parts."""
    made = cls.__new__(cls)
    if isinstance(made, nn.Module):
        nn.Module.__init__(made)
    for name, part in parts.items():
        setattr(made, name, part)
    return made
'''
WIDTH = 100  # of a line
FROM = {  # arguments of torch's constructors that are no attributes of theirs → where they are found
    nn.TransformerEncoderLayer: {
        "d_model": "self_attn.embed_dim",
        "nhead": "self_attn.num_heads",
        "dim_feedforward": "linear1.out_features",
        "dropout": "dropout.p",
        "layer_norm_eps": "norm1.eps",
        "batch_first": "self_attn.batch_first",
    }
}
FROM[nn.TransformerDecoderLayer] = FROM[nn.TransformerEncoderLayer]
LISTS = (nn.Sequential, nn.ModuleList)
OWN = set(vars(nn.Module()))  # what every module has


class Builder:
    """Builds one module; ``after`` are lines that tie what occurs twice, "{model}" standing for the whole."""

    def __init__(self, sources: Sources):
        self.sources = sources
        self.after: list[str] = []
        self._first: dict[int, str] = {}  # id of a module or parameter → the path at which it was met
        self._kept: list = []
        self.puts = False

    def of(self, module: nn.Module, path: str = "", indent: int = 4) -> str:
        """An expression for ``module``, which stands at ``path`` of the whole. Raises Unspelled."""
        if module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations"):
            raise Unspelled(f"{path or 'the model'} has hooks, or computes its weights")
        self._first[id(module)] = path
        self._kept.append(module)
        cls = type(module)
        if cls in LISTS or cls is nn.ModuleDict:
            return self._list(module, path, indent)
        name = self.sources.name(cls)
        if not is_theirs(cls) and (made := self._constructed(module, path)) is not None:
            return made
        self.puts = True
        self.sources.imports["from torch import nn"] = None
        parts = [f"{k}={self._part(v, _joined(path, k), indent + 4)}" for k, v in _attributes(module)]
        return _call(f"put({name}, ", parts, indent)

    def _list(self, module, path: str, indent: int) -> str:
        keyed = isinstance(module, nn.ModuleDict)
        parts = []
        for key, child in module.named_children():
            text = self._part(child, _joined(path, key), indent + 4)
            parts.append(f"{key!r}: {text}" if keyed else text)
        self.sources.imports["from torch import nn"] = None
        name = f"nn.{type(module).__name__}("
        if isinstance(module, nn.Sequential):
            return _call(name, parts, indent)
        brackets = "{}" if keyed else "[]"
        return _call(name + brackets[0], parts, indent, brackets[1])

    def _part(self, value, path: str, indent: int) -> str:
        """Any attribute; what was met before is put in place afterwards."""
        if isinstance(value, nn.Module | nn.Parameter):
            if id(value) in self._first:
                self.after.append(f"{{model}}.{_dotted(path)} = {{model}}.{_dotted(self._first[id(value)])}")
                return "None"
            self._first[id(value)] = path
        if isinstance(value, nn.Module):
            return self.of(value, path, indent)
        if isinstance(value, nn.Parameter):
            self._kept.append(value)
            return f"nn.Parameter({_drawn(value)})"
        if isinstance(value, _Kept):
            return f"nn.Buffer({tensor(value.t)}, persistent={value.persistent})"
        if type(value) in (list, tuple) and any(isinstance(v, nn.Module) for v in value):
            inner = ", ".join(self._part(v, f"{path}[{i}]", indent) for i, v in enumerate(value))
            return f"[{inner}]" if type(value) is list else f"({inner},)"
        if hasattr(value, "__dict__") and not callable(value) and is_theirs(type(value)):
            self.puts = True
            parts = [f"{k}={self._part(v, _joined(path, k), indent + 4)}" for k, v in vars(value).items()]
            return _call(f"put({self.sources.name(type(value))}, ", parts, indent)
        return self.sources.value(value)

    def _constructed(self, module: nn.Module, path: str) -> str | None:
        """A call of torch's constructor that makes the same module; None where none is known to."""
        try:
            given = _arguments(module)
            with random_streams_kept():
                twin = type(module)(**given)
        except Exception:  # a constructor may ask for anything
            return None
        if not _alike(module, twin):
            return None
        for name, parameter in module.named_parameters():
            if id(parameter) in self._first:
                there = self._first[id(parameter)]
                self.after.append(f"{{model}}.{_dotted(_joined(path, name))} = {{model}}.{_dotted(there)}")
            self._first.setdefault(id(parameter), _joined(path, name))
        texts, free = [], True
        for name, parameter in _parameters(type(module)).items():
            if name not in given:
                free = False
                continue
            text = self.sources.value(given[name])
            texts.append(text if free and parameter.default is parameter.empty else f"{name}={text}")
        return f"{self.sources.name(type(module))}({', '.join(texts)})"


class _Kept:
    """A buffer, and whether it is saved."""

    def __init__(self, t: Tensor, persistent: bool):
        self.t, self.persistent = t, persistent


def _attributes(module: nn.Module):
    """(name, value) of all that was set on a module, in the order in which it lists them."""
    for name, value in vars(module).items():
        if name not in OWN:
            yield name, value
    for name, value in module._buffers.items():
        yield name, None if value is None else _Kept(value, name not in module._non_persistent_buffers_set)
    yield from module._parameters.items()
    yield from module._modules.items()


def _arguments(module: nn.Module) -> dict:
    """Arguments of a constructor as the module's attributes tell them, defaults left out."""
    given = {}
    for name, parameter in _parameters(type(module)).items():
        if name in ("device", "dtype", "args", "kwargs", "_weight"):
            continue
        path = FROM.get(type(module), {}).get(name)
        if name == "bias":
            given[name] = _has_bias(module)
        elif path is not None:
            given[name] = _followed(module, path)
        elif name in ("kdim", "vdim") and getattr(module, name, None) == module.embed_dim:
            continue
        elif hasattr(module, name):
            given[name] = getattr(module, name)
        if name in given and parameter.default is not parameter.empty and given[name] == parameter.default:
            del given[name]
    return given


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Arguments of a constructor; those of a recurrence are its base's."""
    known = dict(inspect.signature(nn.RNNBase if issubclass(cls, nn.RNNBase) else cls).parameters)
    known.pop("mode", None)
    return known


def _has_bias(module: nn.Module) -> bool:
    names = [n for n, _ in module.named_parameters()]
    return any("bias" in n for n in names) if names else isinstance(getattr(module, "bias", None), Tensor)


def _followed(module, path: str):
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _alike(module: nn.Module, twin: nn.Module) -> bool:
    """Do two modules differ in nothing but their weights?"""
    for one, two in zip(module.modules(), twin.modules(), strict=True):
        if type(one) is not type(two) or vars(one).keys() != vars(two).keys():
            return False
        tensors = [(dict(m.named_parameters(recurse=False)), dict(m.named_buffers(recurse=False))) for m in (one, two)]
        for mine, its in zip(*tensors, strict=True):
            if {n: t.shape for n, t in mine.items()} != {n: t.shape for n, t in its.items()}:
                return False
        skipped = OWN | {"_flat_weights", "_flat_weight_refs"}  # of recurrences: the same parameters again
        for name, value in vars(one).items():
            if name not in skipped and not isinstance(value, Tensor | nn.Module) and value != vars(two)[name]:
                return False
    return True


def _drawn(p: Tensor) -> str:
    """Random values of the same size; ones and zeros as such."""
    shape = ", ".join(map(str, p.shape))
    flat = p.detach().float()
    if flat.numel() and bool((flat == flat.flatten()[0]).all()):
        return tensor(p)
    if not p.is_floating_point() or not p.ndim:
        return tensor(p)
    std, mean = float(flat.std()) if flat.numel() > 1 else 1.0, float(flat.mean())
    text = f"torch.randn({shape})" + (f" * {std:.2g}" if abs(std - 1) > 0.2 else "")
    text += f" + {mean:.2g}" if abs(mean) > std else ""
    return text if p.dtype == torch.float32 else f"({text}).to({p.dtype})"


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _dotted(path: str) -> str:
    """A path with numbers in it as Python reads it: blocks.0.norm → blocks[0].norm."""
    parts = path.split(".")
    return "".join(f"[{p}]" if p.isdigit() else f".{p}" for p in parts).lstrip(".")


def _call(start: str, parts: list[str], indent: int, end: str = "") -> str:
    """On one line, or one part a line."""
    line = f"{start}{', '.join(parts)}{end})"
    if len(line) + indent <= WIDTH and "\n" not in line:
        return line
    pad = " " * (indent + 4)
    inner = "".join(f"{pad}{part},\n" for part in parts)
    return f"{start.rstrip()}\n{inner}{' ' * indent}{end})"


def configured(module: nn.Module, sources: Sources) -> list[str]:
    """Lines that make a Hugging Face model from its configuration, as ``model``."""
    config, cls = module.config, type(module)
    sources.imports[f"from transformers import {cls.__name__}, {type(config).__name__}"] = None
    given = json.loads(config.to_json_string(use_diff=True))
    implementation = getattr(config, "_attn_implementation", None)
    lines = [f"config = {type(config).__name__}.from_dict({given!r})"]
    lines += [f"config._attn_implementation = {implementation!r}"] if implementation else []
    return [*lines, f"model = {cls.__name__}(config)"]
