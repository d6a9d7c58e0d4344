"""The explorer as a Jupyter widget; it is the app's own JavaScript, and asks nothing of any other machine."""

from __future__ import annotations

import uuid
from typing import Any

import anywidget
import traitlets

from headwise.interp.analysis.in_words import in_words
from headwise.interp.drawing.canvas import (
    LARGEST_PICTURE,
    NOTEBOOK,
    SHEETS,
    Heads,
    Packed,
    all_heads,
    grid_message,
    large_message,
    pack,
    running_text,
    script,
)
from headwise.interp.drawing.canvas import Explorer as Chosen
from headwise.interp.drawing.canvas.packing import EXPLORER
from headwise.interp.drawing.matrix import head_view, recorded
from headwise.interp.drawing.survey import Survey, grid_pictures, layer_marks
from headwise.interp.run.capture import Capture


class Explorer(anywidget.AnyWidget):
    """All heads of a capture, or one of them where there is no ``found``. ``layer``, ``head`` and ``pin`` are what is
    looked at in the browser; set them to look elsewhere."""

    _esm = script(NOTEBOOK)
    _css = "".join(sheet.read_text("utf-8") for sheet in (*SHEETS, EXPLORER / "notebook.css"))

    layer = traitlets.Int().tag(sync=True)
    head = traitlets.Int().tag(sync=True)
    stack = traitlets.Unicode().tag(sync=True)
    pin = traitlets.Dict(None, allow_none=True).tag(sync=True)
    view = traitlets.Unicode("heatmap").tag(sync=True)
    scale = traitlets.Unicode("linear").tag(sync=True)

    explorer = traitlets.Unicode().tag(sync=True)
    stacks = traitlets.List().tag(sync=True)
    views = traitlets.List().tag(sync=True)
    all_heads = traitlets.Bytes().tag(sync=True)
    words = traitlets.Bytes().tag(sync=True)
    grid = traitlets.Bytes().tag(sync=True)
    one = traitlets.Bytes().tag(sync=True)
    act = traitlets.Dict().tag(sync=True)  # what was done in the browser

    def __init__(self, cap: Capture, layer: int, head: int, stack: str, found: Survey | None = None):
        self.cap, self.found = cap, found
        self.packed: Packed | None = None
        self.zoom: tuple[int, ...] | None = None
        self.beside: list[tuple[int, int]] = []
        self.turn: int | None = None
        stacks = list(cap.stacks) if found is not None else [stack]
        super().__init__(layer=layer, head=head, stack=stack, explorer=uuid.uuid4().hex, stacks=stacks)
        self._turn_to_stack()
        self.observe(self._heard, "act")
        self.observe(self._another_stack, "stack")
        self.observe(lambda change: self._draw(), ["layer", "head", "pin", "view", "scale"])

    def __repr__(self) -> str:
        return f"Explorer({self.cap!r}, layer {self.layer}, head {self.head})"

    @property
    def _place(self) -> dict[int, int]:
        """layer → row of the grid."""
        return {call.layer: row for row, call in enumerate(self.cap.stack(self.stack))}

    def _turn_to_stack(self) -> None:
        """Send all that depends on which stack is looked at."""
        cap, stack = self.cap, self.stack
        call = cap.find(self.layer, stack)
        pictured = call.key_axis.picture is not None and call.queries == call.keys <= LARGEST_PICTURE
        self.views = ["picture"] * pictured + ["heatmap", "bipartite"]
        self.view = self.view if self.view in self.views and not pictured else self.views[0]
        text = running_text(cap, call)
        self.words = b"" if text is None else pack({"view": "words", "explorer": self.explorer, **text})
        if self.found is not None:
            self.packed = all_heads(cap, stack, explorer=self.explorer)
            self.all_heads = b"" if self.packed is None else self.packed.message
            self.grid = self._thumbnails(self.found)
        self._draw()

    def _thumbnails(self, found: Survey) -> bytes:
        calls, place = self.cap.stack(self.stack), self._place
        words = in_words(self.cap, found.table)  # a head's surest role first
        words = words[words["stack"] == self.stack].drop_duplicates(["layer", "head"])
        heads = Heads(
            grid_pictures(self.cap, found, self.stack),
            rows=[str(call.layer) for call in calls],
            columns=[str(head) for head in range(max(call.heads for call in calls))],
            marks={place[layer]: mark for layer, mark in layer_marks(self.cap, found, self.stack).items()},
            captions={(place[row.layer], row.head): f"{row.role}: {row.evidence}" for row in words.itertuples()},
        )
        header, arrays = grid_message(heads)
        return pack(header | {"explorer": self.explorer, "height": None, "compact": False, "means": True}, **arrays)

    def _draw(self) -> None:
        """Send which head is looked at, and its numbers where not all of them have travelled."""
        call, place = self.cap.find(self.layer, self.stack), self._place
        matrix = None
        if self.packed is None:
            region = None if self.view == "picture" else self.zoom or recorded(self.cap, call)
            size = LARGEST_PICTURE if self.view == "picture" else 512
            matrix = head_view(self.cap, call, self.head, region=region, size=size)
        where = (place[self.layer], self.head)
        chosen = Chosen(self.explorer, self.packed, where, self.beside, self.pin or None, self.zoom)
        header, arrays = large_message(chosen, matrix, self.view, self.scale)
        self.one = pack(header | {"turn": self.turn}, **arrays)

    def _heard(self, change: dict[str, Any]) -> None:
        act = dict(change["new"])
        self.turn = act.get("turn")
        layers = list(self._place)
        with self.hold_trait_notifications():
            if "layer" in act:
                self.layer, self.head = layers[act["layer"]], act["head"]
            if "token" in act:
                self.pin = act["token"]
            if "zoom" in act:
                self.zoom = act["zoom"]
            self.beside = [tuple(pair) for pair in act.get("beside", self.beside)]
        self._draw()

    def _another_stack(self, change: dict[str, Any]) -> None:
        calls = self.cap.stack(self.stack)
        self.zoom, self.beside = None, []
        with self.hold_trait_notifications():
            self.pin, self.layer, self.head = None, calls[0].layer, 0
        self._turn_to_stack()
