"""A message as one blob, and JavaScript modules as one text."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headwise.assets import ASSETS

CANVAS = ASSETS / "canvas"
EXPLORER = ASSETS / "explorer"
DRAWING = (  # dependencies first
    *(
        CANVAS / f"{name}.js"
        for name in ("pack", "colour", "text", "legend", "sound", "track", "matrix", "pins", "figure")
    ),
    *(EXPLORER / f"{name}.js" for name in ("heads", "store", "words", "panel")),
    *(CANVAS / f"{name}.js" for name in ("grid", "heatmap", "bipartite", "picture")),
)
FILES = (*DRAWING, CANVAS / "main.js")  # of the app
NOTEBOOK = (*DRAWING, EXPLORER / "save.js", EXPLORER / "notebook.js")
SHEETS = (CANVAS / "canvas.css", EXPLORER / "explorer.css")
DTYPES = {np.dtype(np.float32): "f4", np.dtype(np.float16): "f2", np.dtype(np.uint8): "u1"}

UNREAD = re.compile(r"^[ \t]*(/\*\*(?s:.*?)\*/[ \t]*\n|//.*\n)?", re.MULTILINE)

# Streamlit serves a component's own files only for an installed distribution that ships a pyproject.toml naming them,
# and a notebook's widget is one module by nature. So the modules travel inline, gzipped to a quarter of their size, and
# the browser links them once.
LOADER = r"""
const packed = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const urls = {};
for (const [name, text] of await new Response(plain).json()) {
  const linked = text.replace(/"\.\/(\w+\.js)"/g, (_, other) => `"${urls[other]}"`);
  const named = linked + `\n//# sourceURL=headwise/${name}`;
  urls[name] = URL.createObjectURL(new Blob([named], { type: "text/javascript" }));
}
const { default: mount } = await import(urls["%s"]);
export default mount;
"""


def script(paths: Iterable[Path] = FILES) -> str:
    """JavaScript as it is sent: modules, of which the last is the one that is asked for its default export, in one
    inline module, without their comments and indents, which nobody reads there. (No module has a string that goes over
    lines.)"""
    files = [(path.name, UNREAD.sub("", path.read_text("utf-8"))) for path in paths]
    packed = gzip.compress(json.dumps(files).encode(), mtime=0)
    return LOADER % (base64.b64encode(packed).decode(), files[-1][0])


def pack(header: Mapping[str, Any], **arrays: np.ndarray) -> bytes:
    """Pack a JSON-able header and arrays (float32, float16 or uint8, any shape) into the one blob a message may be.

    uint32 length of the header (little-endian), the header as ASCII JSON, the arrays' raw little-endian
    bytes, each starting on a multiple of 4. The header gains `arrays`, a list of
    {name, dtype "f4" | "f2" | "u1", shape, offset into what follows the header}.
    """
    table: list[dict[str, Any]] = []
    body = bytearray()
    for name, array in arrays.items():
        if array.dtype not in DTYPES:
            raise TypeError(f"{name}: expected float32, float16 or uint8, got {array.dtype}; convert it first")
        dtype = DTYPES[array.dtype]
        table.append({"name": name, "dtype": dtype, "shape": array.shape, "offset": len(body)})
        body += array.astype(f"<{dtype}", copy=False).tobytes()
        body += bytes(-len(body) % 4)
    text = json.dumps({**header, "arrays": table}, allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + bytes(body)
