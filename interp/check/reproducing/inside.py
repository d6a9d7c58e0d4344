"""An experiment with one module: what goes into it at one position is changed, and one row that comes out is watched.

For promises of a layer that the outputs of the whole model do not show: later layers may make up for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from headwise.interp.check.reproducing.contents import CLEAR
from headwise.interp.check.reproducing.scene import Scene, Script

ALONE = """
seen = []
inner = model.get_submodule({module!r})
hook = inner.register_forward_pre_hook(lambda module, *given: seen.append(given), with_kwargs=True)
{run}
hook.remove()
args, kwargs = seen[0]
before = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim == 3)

def alone(hidden):
    \"\"\"The module by itself, with ``hidden`` in place of what it was given.\"\"\"
    with torch.no_grad():
        out = inner(
            *(hidden if value is before else value for value in args),
            **{{name: hidden if value is before else value for name, value in kwargs.items()}},
        )
    return out[0] if isinstance(out, tuple) else out

after = before.clone()
after[:, {key}] = torch.randn(before[:, {key}].shape, generator=torch.Generator().manual_seed(1))
moved = gap(alone(before)[:, {query}], alone(after)[:, {query}])
print(f"row {query} of {module} moved by {{moved:.2g}} of its scale when its input {key} changed")
"""


def inside(scene: Scene) -> Iterator[Script]:
    """Where a picture of the module shows an edge that is missing, or one too many."""
    finding, bench = scene.finding, scene.bench
    if finding.picture is None or not finding.module or finding.picture.observed.shape[0] != bench.length:
        return
    seen, may = finding.picture.observed, finding.picture.expected
    for edges, says, holds in (
        (may & ~seen, "a row does not see a position that it is promised", "moved > 0"),
        (seen & ~may, "a row sees a position that its mask hides", f"moved <= {CLEAR / 10}"),
    ):
        if bool(edges.any()):
            query, key = edges.nonzero()[0].tolist()
            script = Script(scene)
            script.run("out", scene.draw(bench.expect.batch or 1, bench.length))
            run = script.lines.pop().removeprefix("out = ")
            text = ALONE.format(module=finding.module, run=run, key=key, query=query)
            script.add(*text.strip().splitlines(), f'assert {holds}, "{says}"')
            yield script
