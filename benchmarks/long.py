"""Looking at long texts beside running them: seconds for the capture, for all heads at a glance, and for one head.

    python benchmarks/long.py [MODEL] [--tokens 2048 4096 8192] [--repeats 3] [--exact]

Ratios, because seconds are a machine's own: looking at all heads must cost less than the run, one head half a second
at 8,192 tokens. Medians of some repeats on a real text, this README said again. ``--exact`` also looks at every query
of all heads, for those who have the time. Run it on a machine that does nothing else.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

SURVEY_LIMIT = 1.0  # × the capture's time, wanted of all heads
HEAD_LIMIT = 0.5  # seconds, wanted of one head


def seconds(work, repeats: int):
    """(median of some repeats, what the last one gave)."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        made = work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken), made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--exact", action="store_true")
    asked = parser.parse_args()

    from headwise import capture, load
    from headwise.interp.drawing.matrix import head_view
    from headwise.interp.drawing.survey import survey
    from headwise.interp.subject import Inputs

    subject = load(asked.model)
    ids = subject.encode((ROOT / "README.md").read_text("utf-8")[:8000]).kwargs["input_ids"]
    columns = ["tokens", "heads", "capture s", "all heads s", "×", "one head s", *(["exact s"] if asked.exact else [])]
    print(" | ".join(f"{name:>11}" for name in columns))
    kept = True
    for tokens in asked.tokens:
        inputs = Inputs({"input_ids": ids.repeat(1, -(-tokens // ids.shape[1]))[:, :tokens]})
        run, cap = seconds(lambda inputs=inputs: capture(subject, inputs), asked.repeats)
        every, found = seconds(lambda cap=cap: survey(cap), asked.repeats)
        middle = cap.calls[len(cap.calls) // 2]
        one, _ = seconds(lambda cap=cap, call=middle: head_view(cap, call, call.heads // 2), asked.repeats)
        row = [f"{tokens:,}", len(found.table), f"{run:.2f}", f"{every:.2f}", f"{every / run:.2f}", f"{one:.2f}"]
        if asked.exact:
            row.append(f"{seconds(lambda cap=cap: survey(cap, exact=True), 1)[0]:.2f}")
        print(" | ".join(f"{cell:>11}" for cell in row), flush=True)
        kept &= every <= SURVEY_LIMIT * run and one <= HEAD_LIMIT
    print("kept" if kept else f"not kept: all heads ≤ {SURVEY_LIMIT} × the capture, one head ≤ {HEAD_LIMIT} s")


if __name__ == "__main__":
    main()
