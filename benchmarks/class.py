"""A class at one server: sessions over real websockets, each with a text of its own, thinking between two acts.

    python benchmarks/class.py [--sessions 100] [--acts link|browser] [--minutes 3] [--soak]

- opening  from the connection to the end of the first run: one capture, all heads looked at
- act      another head is looked at: what the browser sends → the end of the run that answers it (picture: until the
           large head's message comes)
           link: a full rerun of the page · browser: what the page's own JavaScript sends once the hand has rested,
           long after it drew the head by itself
- CPU      the server's, for an opening and for an act, so that a busy machine changes little
- memory   the server's, before the first visitor and after the last act; with --soak every minute

An act is right when the address afterwards names the head that was asked for. The app is started here, or is the one
at --url with --pid; this process costs CPU of its own, most of it to read what it is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ROOT = Path(__file__).parents[1]
HEADS = (4, 8)  # layers and heads of the model that opens first
HEAD = "-one"  # how the large head is called: what is done in grid, head or text is heard there
KEPT = 2  # runs that a browser keeps a message for
WHO = ("Anna", "Ben", "Carla", "David", "Eva", "Felix", "Greta", "Hugo", "Ida", "Jan", "Karla", "Leo", "Mia", "Nils")
WHAT = (
    "a book",
    "a drink",
    "a letter",
    "the keys",
    "some bread",
    "the map",
    "a coat",
    "an answer",
    "a song",
    "the money",
)


@dataclass
class Told:
    """What was measured."""

    opened: list[float] = field(default_factory=list)
    acted: list[float] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)  # the first picture that came
    sent: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Server:
    """The app in a process of its own, and what that has cost so far."""

    def __init__(self, url: str | None, pid: int | None):
        self.started = None
        if url is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            flags = ["--server.headless=true", "--server.address=127.0.0.1", f"--server.port={port}"]
            command = [sys.executable, "-m", "streamlit", "run", "app.py", *flags]
            self.started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
            url, pid = f"http://127.0.0.1:{port}", self.started.pid
        self.url, self.process = url, psutil.Process(pid)

    def wait(self, path: str, seconds: float = 90) -> float:
        """Until that address answers → how long that took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            try:
                urllib.request.urlopen(self.url + path, timeout=1)
                return time.monotonic() - began
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.1)
        raise SystemExit(f"{self.url}{path} did not answer within {seconds:.0f} s.")

    @property
    def cpu(self) -> float:
        return sum(self.process.cpu_times()[:2])

    @property
    def memory(self) -> float:
        return self.process.memory_info().rss / 2**20

    def stop(self) -> None:
        if self.started is not None:
            self.started.terminate()
            self.started.wait(30)


class Visitor:
    """One browser: its socket, the messages it keeps, where its page stands."""

    def __init__(self, number: int, told: Told, acts: str):
        self.told, self.acts, self.chance = told, acts, random.Random(number)
        self.text = text_of(number)
        self.page = self.query = ""
        self.runs, self.keeps = 0, {}  # message → the run that last used it
        self.canvas = self.fragment = ""

    async def visit(self, url: str, arrive: float, think: float, until: float) -> None:
        await asyncio.sleep(arrive)
        began = time.monotonic()
        stream = url.replace("http", "ws", 1) + "/_stcore/stream"
        async with websockets.connect(stream, subprotocols=["streamlit"], max_size=None) as self.socket:
            self.query = urlencode({"text": self.text})
            await self.run()
            self.told.opened.append(time.monotonic() - began)
            while True:
                await asyncio.sleep(think * self.chance.uniform(0.5, 1.5))
                if time.monotonic() > until:
                    return
                await self.act(self.chance.randrange(HEADS[0]), self.chance.randrange(HEADS[1]))

    async def act(self, layer: int, head: int) -> None:
        """Look at that head, and see that the page does."""
        clicked = json.dumps([{"event": "event", "value": {"layer": layer, "head": head, "turn": self.runs}}])
        began = time.monotonic()
        drawn, sent = await self.run(clicked, self.fragment if self.acts == "browser" else "")
        self.told.acted.append(time.monotonic() - began)
        self.told.drawn.append(drawn - began)
        self.told.sent.append(sent)
        address = parse_qs(self.query)
        shown = tuple(int(address.get(name, ["-1"])[0]) for name in ("layer", "head"))
        if shown != (layer, head):
            self.told.wrong.append(f"asked for {layer}.{head}, shown {shown[0]}.{shown[1]}")

    async def run(self, clicked: str = "", fragment: str = "") -> tuple[float, int]:
        """Have the script run, whole or that fragment → when the first picture was there, and bytes that came."""
        asked = BackMsg()
        state = asked.rerun_script
        state.query_string, state.page_script_hash, state.fragment_id = self.query, self.page, fragment
        state.cached_message_hashes.extend(self.keeps)
        if clicked:
            state.widget_states.widgets.add(
                id=f"$$STREAMLIT_INTERNAL_KEY_{self.canvas}__events", json_trigger_value=clicked
            )
        self.runs += 1
        await self.socket.send(asked.SerializeToString())
        drawn, sent = 0.0, 0
        async for data in self.socket:
            sent += len(data)
            message = ForwardMsg.FromString(data)
            kind = message.WhichOneof("type")
            if kind == "delta":
                drawn = drawn or self.take(message)
            elif kind == "ref_hash":
                self.keeps[message.ref_hash] = self.runs
            elif kind == "new_session":
                self.page = message.new_session.page_script_hash or self.page
            elif kind == "navigation":
                self.page = message.navigation.page_script_hash
            elif kind == "page_info_changed":
                self.query = message.page_info_changed.query_string
            elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                break
        self.keeps = {hash: run for hash, run in self.keeps.items() if run > self.runs - KEPT}
        return drawn or time.monotonic(), sent

    def take(self, message: ForwardMsg) -> float:
        """Keep what is kept, notice the canvas → the time where this is a picture."""
        if message.metadata.cacheable:
            self.keeps[message.hash] = self.runs
        element = message.delta.new_element
        if element.WhichOneof("type") == "exception":
            self.told.wrong.append(element.exception.message)
        if element.WhichOneof("type") != "bidi_component":
            return 0.0
        if not element.bidi_component.id.endswith(HEAD):
            return 0.0
        self.canvas, self.fragment = element.bidi_component.id, message.delta.fragment_id
        return time.monotonic()


def text_of(number: int) -> str:
    """About 60 tokens that nobody else has."""
    chance = random.Random(1_000 + number)
    said = [f"{chance.choice(WHO)} gave {chance.choice(WHAT)} to {chance.choice(WHO)} at {hour}." for hour in range(5)]
    return f"{' '.join(said)} Then number {number} gave"


async def lesson(server: Server, told: Told, options: argparse.Namespace) -> None:
    """All sessions, and what each minute of a soak says."""
    until = time.monotonic() + options.arrive + 60 * options.minutes
    gaps = options.arrive / options.sessions
    visits = [
        Visitor(number, told, options.acts).visit(server.url, number * gaps, options.think, until)
        for number in range(options.sessions)
    ]
    everyone = asyncio.gather(*visits)
    opening = server.cpu
    while len(told.opened) < options.sessions and not everyone.done():
        await asyncio.sleep(0.2)
    acted_meanwhile, opened_for = len(told.acted), server.cpu - opening
    print(f"all open   {opened_for:7.1f} s of CPU for {options.sessions} openings and {acted_meanwhile} acts")
    minute = 0
    before = server.cpu
    while not everyone.done():
        await asyncio.sleep(1)
        minute += 1
        if options.soak and minute % 60 == 0:
            print(f"minute {minute // 60:3d} {server.memory:7.0f} MiB, {len(told.acted)} acts", flush=True)
    await everyone
    acts = len(told.acted) - acted_meanwhile
    each = 1000 * (server.cpu - before) / acts if acts else float("nan")
    print(f"CPU        {each:7.0f} ms an act, of the {acts} after all were open")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--acts", choices=("link", "browser"), default="link")
    parser.add_argument("--think", type=float, default=8.0, help="seconds, give or take a half")
    parser.add_argument("--arrive", type=float, default=60.0, help="seconds within which all come in")
    parser.add_argument("--minutes", type=float, default=2.0, help="of acting after that")
    parser.add_argument("--soak", action="store_true", help="say every minute how large the server is")
    parser.add_argument("--url", help="an app that runs already")
    parser.add_argument("--pid", type=int, help="its process")
    options = parser.parse_args()
    server, told = Server(options.url, options.pid), Told()
    try:
        print(f"{options.sessions} sessions, {options.acts}, think {options.think:g} s, {os.cpu_count()} cores")
        answers = server.wait("/_stcore/health")
        print(
            f"start      {answers:7.1f} s, warm after another {server.wait('/readyz'):.1f} s, {server.memory:.0f} MiB"
        )
        asyncio.run(lesson(server, told, options))
        row("opening", told.opened)
        row("act", told.acted)
        row("picture", told.drawn)
        print(f"sent       {statistics.mean(told.sent or [0]) / 1000:7.1f} kB an act")
        print(f"memory     {server.memory:7.0f} MiB")
        print(f"wrong      {len(told.wrong):7d} {'; '.join(sorted(set(told.wrong))[:3])}")
    finally:
        server.stop()


def row(name: str, seconds: list[float]) -> None:
    """The middle, the nineteenth of twenty and the worst, in milliseconds."""
    found = sorted(seconds) or [float("nan")]
    p50, p95 = (1000 * found[int(part * (len(found) - 1))] for part in (0.5, 0.95))
    print(f"{name:10s} {p50:7.0f} ms p50, {p95:.0f} ms p95, {1000 * found[-1]:.0f} ms max, of {len(seconds)}")


if __name__ == "__main__":
    main()
