"""What a stranger does: installs the wheel, and runs it in a folder of their own that has packages named like ours."""

import os
import re
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

import headwise
from tests.browser.opening import MENU, go, grid, menu
from tests.browser.serving import ROOT, flags, free_port, until_it_answers

SOURCE = ("headwise", "interp", "models", "pages", "assets", "tests", ".streamlit")  # folders that are tried to package
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"
MINE = {  # a project with names like ours: two of its packages are used by its model, two are never to be imported
    "models/__init__.py": "from pathlib import Path\nSIZE = 16\nPath(__file__).with_name('imported').touch()\n",
    "utils/__init__.py": "def mask(n):\n    from torch import nn\n"
    "    return nn.Transformer.generate_square_subsequent_mask(n)\n",
    "interp/__init__.py": "raise RuntimeError('somebody else imported my interp')\n",
    "pages/__init__.py": "raise RuntimeError('somebody else imported my pages')\n",
    "mine.py": """
from models import SIZE
from torch import nn
from utils import mask

class Mine(nn.Module):
    def __init__(self, masked):
        super().__init__()
        self.embed, self.masked = nn.Embedding(11, SIZE), masked
        self.layer = nn.TransformerEncoderLayer(SIZE, 2, 16, dropout=0.0, batch_first=True)
    def forward(self, ids):
        return self.layer(self.embed(ids), src_mask=mask(ids.shape[1]) if self.masked else None)

right, wrong = lambda: Mine(True), lambda: Mine(False)
""",
}


class Environment:
    """A fresh virtual environment that sees the libraries of this one, and nothing of the checkout."""

    def __init__(self, folder: Path):
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.bin, self.home = folder / "venv" / "bin", folder / "home"
        (self.packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
        libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (self.packages / "libraries.pth").write_text("\n".join(libraries))
        self.home.mkdir()
        for name, text in MINE.items():
            (self.home / name).parent.mkdir(exist_ok=True)
            (self.home / name).write_text(text)
        hidden = {"PYTHONPATH", "PYTHONSAFEPATH", "HEADWISE_CACHE"}
        self.variables = {name: value for name, value in os.environ.items() if name not in hidden}
        self.variables |= {"HOME": str(self.home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def run(self, *command: str, status: int = 0) -> str:
        """What ``python …`` or a script of the environment prints, run in the stranger's folder."""
        program = str(self.bin / command[0])
        ran = subprocess.run([program, *command[1:]], cwd=self.home, env=self.variables, text=True, capture_output=True)
        assert ran.returncode == status and "Traceback" not in ran.stderr, ran.stderr
        return ran.stdout

    def pip(self, *arguments: str) -> None:
        self.run("python", "-P", "-m", "pip", "--no-cache-dir", *arguments)

    def holds(self) -> set[str]:
        return {file.name for file in [*self.packages.iterdir(), *self.bin.iterdir()]} - {"__pycache__"}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The project's files as a clone has them: a build writes beside them, and would take up what an older one left."""
    copy = tmp_path_factory.mktemp("source")
    for folder in SOURCE:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("app.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    return copy


def build(what: str, source: Path, into: Path) -> Path:
    subprocess.run([sys.executable, "-c", BUILD.format(what), str(into)], cwd=source, check=True, capture_output=True)
    (built,) = into.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel in a fresh environment; at last it is uninstalled, and nothing may be left."""
    environment = Environment(tmp_path_factory.mktemp("installed"))
    before = environment.holds()
    environment.pip("install", "-I", "--no-deps", "--no-index", str(wheel))
    gained = {"headwise", f"headwise-{version(wheel)}.dist-info"}  # the package and the command; nothing generic
    assert environment.holds() - before == gained
    yield environment
    environment.pip("uninstall", "-y", "headwise")
    assert environment.holds() == before


def version(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("RECORD")}


def test_the_wheel_holds_what_the_app_needs(wheel, source):
    found = names(wheel)
    assert {name.split("/")[0] for name in found} == {"headwise", f"headwise-{version(wheel)}.dist-info"}
    code = {f.relative_to(source) for room in SOURCE[:5] for f in (source / room).rglob("*.py")}
    code = {str(f).removeprefix("headwise/") for f in code} | {"app/app.py"}
    assert {name.removeprefix("headwise/") for name in found if name.endswith(".py")} == code
    assets = {str(f.relative_to(source)) for f in (source / "assets").rglob("*") if f.is_file() and f.suffix != ".py"}
    assets -= {
        f"assets/{name}.png" for name in ("explain", "kinds", "screenshot", "stream")
    }  # for readers of the README
    assert {f"headwise/{name}" for name in assets} <= found
    assert {"headwise/app/.streamlit/config.toml", "headwise/py.typed"} <= found
    assert wheel.stat().st_size < 48 * 2**20


def test_an_sdist_gives_the_same_wheel(source, wheel, tmp_path):
    for name in ("sdist", "wheel", "unpacked"):
        (tmp_path / name).mkdir()
    shutil.unpack_archive(build("sdist", source, tmp_path / "sdist"), tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert names(build("wheel", unpacked, tmp_path / "wheel")) == names(wheel)


def test_an_editable_install_opens_no_other_name(source, tmp_path):
    environment = Environment(tmp_path)
    before = environment.holds()
    environment.pip("install", "-I", "--no-deps", "--no-index", "--no-build-isolation", "-e", str(source))
    found = "from headwise.interp import masks; from headwise.commands.app import script; print(script())"
    assert environment.run("python", "-P", "-c", found) == f"{source / 'app.py'}\n"
    is_hidden = "from importlib.util import find_spec; import sys; print(find_spec(sys.argv[1]))"
    for name in ("interp", "models", "pages", "assets", "app", "tests"):
        assert environment.run("python", "-P", "-c", is_hidden, name) == "None\n"
    environment.pip("uninstall", "-y", "headwise")
    assert environment.holds() == before


def test_the_face_is_light_and_whole(installed):
    light = (
        "import sys, headwise; print(headwise.__file__); assert 'torch' not in sys.modules and len(sys.modules) < 200"
    )
    assert installed.run("python", "-c", light) == f"{installed.packages / 'headwise' / '__init__.py'}\n"
    whole = f"from headwise import {', '.join(headwise.__all__)}; cap = capture(load('tiny-decoder'), 'The people'); "
    whole += "assert sweep(cap).shape[0] == 32 and cap.subject.name in available() and edits.ZeroHead and masks.Causal"
    installed.run("python", "-c", whole)
    hidden = "from importlib.util import find_spec; print(find_spec('interp'), find_spec('models'))"
    assert installed.run("python", "-P", "-c", hidden) == "None None\n"
    assert not (installed.home / "models" / "imported").exists()


def test_help_answers_at_once(installed):
    timed = "import sys, time; before = time.perf_counter(); from headwise.__main__ import main\n"
    timed += "try: main(['--help'])\nexcept SystemExit: print(time.perf_counter() - before, 'torch' in sys.modules)"
    *told, last = installed.run("python", "-c", timed).splitlines()
    seconds, torch = last.split()
    assert float(seconds) < 0.5 and torch == "False"
    commands = [found[1] for line in told if (found := re.match(r" {4}(\w+)", line))]
    assert sorted(commands) == ["app", "check", "evaluate", "explain", "export", "fetch", "train"]


def test_check_takes_the_stranger_s_own_packages(installed):
    assert installed.run("headwise", "check", "mine.py:right", "--expect", "causal").startswith("Mine: clean")
    assert (installed.home / "models" / "imported").exists()
    assert "future-leak" in installed.run(
        "python", "-m", "headwise", "check", "mine.py:wrong", "--expect", "causal", status=1
    )
    (installed.home / "models" / "imported").unlink()


@pytest.mark.parametrize("command", [("headwise",), ("python", "-m", "headwise")], ids=" ".join)
def test_export_takes_a_bundled_model(installed, wheel, command):
    installed.run(*command, "export", "tiny-decoder", "The people of the United States", "--out", "head.svg")
    drawn = (installed.home / "head.svg").read_text()
    assert "United" in drawn and f"Headwise {version(wheel)}," in drawn
    assert not (installed.home / "models" / "imported").exists()


def test_models_are_listed_trained_and_measured_by_name(installed):
    assert "smollm2-135m" in installed.run("headwise", "fetch")
    for command in ("train", "evaluate"):
        installed.run("headwise", command, "no-such-model", status=2)


def test_the_app_opens_at_any_page_first(installed, browser):
    """A fresh server is asked for a page of the menu before anybody opened its first one."""
    port = free_port()
    command = [str(installed.bin / "headwise"), "app", "--port", str(port), "--", *flags()]
    server = subprocess.Popen(command, cwd=installed.home, env=installed.variables, stderr=subprocess.PIPE, text=True)
    try:
        until_it_answers(f"http://127.0.0.1:{port}")
        page = browser.new_page()
        broken = []
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/masks")
        expect(page.get_by_text("Observed mask against the promise")).to_be_visible()
        assert menu(page) == MENU
        expect(page).to_have_title("Headwise")
        # of the packaged config.toml: no button of Streamlit's, the size of the type
        expect(page.get_by_test_id("stAppDeployButton")).to_have_count(0)
        expect(page.locator("html")).to_have_css("font-size", "14px")
        go(page, "Heads")
        expect(grid(page)).to_be_visible()
        assert not broken
        page.close()
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=20)
        assert server.returncode == 0 and "Traceback" not in told
    finally:
        server.kill()
        server.wait()
    assert not (installed.home / "models" / "imported").exists()
