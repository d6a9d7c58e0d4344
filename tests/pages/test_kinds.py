"""Both pages for every kind of model, without a browser: what they say of good and bad input, and what stays behind."""

import gc
import io
import resource
import subprocess
import sys
import wave
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from headwise import capture
from headwise.interp.drawing.matrix import head_view, recorded
from headwise.interp.drawing.survey import patch_pictures
from headwise.models import load, read_image, read_wav
from headwise.pages._shared import canvas as _canvas
from tests.browser.serving import ROOT

SPEECH = Path("/usr/share/sounds/alsa/Front_Center.wav")  # Debian's alsa-utils
SEVEN = ROOT / "assets" / "examples" / "seven.png"
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pages.{page} import {page}
{page}()
"""


def app(page: str = "heads", **state) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT), page=page), default_timeout=240)
    for name, value in state.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception, test.exception
    return test


def html(test: AppTest, mark: str) -> str:
    return unescape(" ".join(h.proto.body for h in test.get("html") if f"data-testid='{mark}'" in h.proto.body))


def errors(test: AppTest) -> str:
    assert not test.exception, test.exception
    return " ".join(e.value for e in test.error)


def wav(seconds: float, rate: int) -> bytes:
    """Real speech, said again and again."""
    with wave.open(str(SPEECH)) as source:
        samples = np.frombuffer(source.readframes(source.getnframes()), np.int16)[:: source.getframerate() // rate]
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(rate)
        target.writeframes(np.resize(samples, int(seconds * rate)).tobytes())
    return file.getvalue()


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def drawn(monkeypatch):
    """What the large picture was drawn with."""
    seen = {}
    monkeypatch.setattr(_canvas, "large", lambda explorer, matrix, **how: seen.update(how, matrix=matrix))
    return seen


BUNDLED = {
    "tiny-attention-only": ("2 layers × 4 heads", "Next token"),
    "tiny-encoder": ("4 layers × 6 heads", "Masked token"),
    "tiny-classifier": ("4 layers × 6 heads", "favourable"),
    "tiny-encoder-decoder": ("3 layers × 4 heads (cross)", "Next token"),
    "tiny-vit": ("7 × 7 patches", "Class"),
    "tiny-reformer": ("4 layers × 4 heads", "Next token"),
    "tiny-transformer-xl": ("4 layers × 4 heads", "Next token"),
}


@pytest.mark.parametrize("model", BUNDLED)
def test_every_bundled_model_says_what_it_is_and_what_it_thinks(model):
    test = app(model=model)
    line, said = BUNDLED[model]
    assert line in html(test, "headline") and "nothing unseen" in html(test, "headline")
    assert said in html(test, "says")
    assert not test.error


@pytest.mark.parametrize("model", BUNDLED)
def test_the_masks_page_takes_every_kind(model):
    test = app("masks", model=model)
    assert not test.error
    stacks = {call.stack for call in capture(load(model), example(model)).calls}
    assert set(test.dataframe[0].value["stack"]) == stacks


def example(model: str):
    if model == "tiny-vit":
        return read_image(SEVEN)
    return "knight" if model == "tiny-encoder-decoder" else "The people of the United States."


def test_cross_attention_is_named_by_both_sequences(drawn):
    app(model="tiny-encoder-decoder", text="knight")
    cap = capture(load("tiny-encoder-decoder"), "knight")
    matrix = drawn["matrix"]
    assert (matrix.rows.name, matrix.columns.name) == ("target queries", "source keys")
    assert matrix.keys == (*"knight", "</s>") and matrix.queries == cap.axes["target"].labels
    layer, head = (int(word) for word in matrix.title.split() if word.isdigit())
    np.testing.assert_array_equal(matrix.values, cap.find(layer, "cross").weights(head)[0].numpy())


@pytest.mark.parametrize(
    ("target", "sentence"), [("", "The target is empty"), ("   ", "The target is empty"), ("☃☃", "no character")]
)
def test_a_target_without_anything_in_it_is_one_sentence(target, sentence):
    assert sentence in errors(app(model="tiny-encoder-decoder", mode="typed", target=target))


def test_a_typed_target_and_strange_letters_in_the_source(drawn):
    test = app(model="tiny-encoder-decoder", text="knight 7", mode="typed", target="nˈIt")
    assert drawn["matrix"].queries == ("<s>", *"nˈIt")
    assert "does not know: ' ', '7'" in html(test, "notes")


def test_writing_step_by_step_ends_and_starts_over(drawn):
    test = app(model="tiny-encoder-decoder", text="knight", mode="stepwise", temperature="0")
    assert drawn["matrix"].queries == ("<s>",)
    test.button(key="write-one").click().run()
    assert len(drawn["matrix"].queries) == 2
    test.button(key="write-many").click().run()
    written = capture(load("tiny-encoder-decoder"), "knight").axes["target"].labels
    assert drawn["matrix"].queries == (*written, "</s>")
    assert "ended" in html(test, "says") and test.button(key="write-one").disabled
    test.button(key="write-none").click().run()
    assert drawn["matrix"].queries == ("<s>",)


def test_a_second_text_is_judged_and_a_pair_is_one_axis(drawn):
    test = app(model="tiny-encoder", text="And God said, Let there be light.", second="And there was light.")
    assert "Does the second text follow" in html(test, "says")
    assert drawn["matrix"].keys.count("[SEP]") == 2


def test_the_same_text_before_and_after_fine_tuning(drawn):
    text = "A dull, lifeless mess."
    test = app(model="tiny-encoder", text=text, compare="tiny-classifier", layer="3", head="1")
    before, after = (
        capture(load(name), text).find(3).weights(1)[0].numpy() for name in ("tiny-encoder", "tiny-classifier")
    )
    matrix = drawn["matrix"]
    np.testing.assert_allclose(matrix.values, after - before, atol=1e-7)
    made: dict = {}
    exec(test.code[0].value, made)
    np.testing.assert_array_equal(made["view"].values, matrix.values)
    assert matrix.signed and matrix.of == "tiny-classifier − tiny-encoder" and matrix.values.abs().max() > 1e-4


def test_models_of_other_tokens_are_not_compared(drawn):
    test = app(model="tiny-decoder", compare="tiny-encoder")
    assert any("other tokens" in info.value for info in test.info) and not drawn["matrix"].signed


def test_pictures_show_what_the_model_was_given(drawn):
    test = app(model="tiny-vit")
    test.file_uploader(key="upload-vision").set_value(
        ("wide.png", png(Image.new("L", (60, 20), 255)), "image/png")
    ).run()
    assert "inverted" in html(test, "notes")
    patches = drawn["matrix"].columns
    assert drawn["view"] == "picture" and patches.grid == (7, 7)
    assert patches.picture.box == (0, -20, 60, 40)  # padded to a square
    assert patches.picture.pixels.shape == (20, 60, 3)


def test_thumbnails_are_laid_out_as_the_picture_is():
    cap = capture(load("tiny-vit"), read_image(SEVEN))
    pictures = patch_pictures(cap, "encoder", 0)
    weights = cap.find(2).weights(3)[0, 0, 1:].reshape(7, 7)  # CLS to the patches, row by row
    np.testing.assert_allclose(pictures[2, 3], weights / weights.max(), atol=1e-6)


BAD_PICTURES = {
    "notes.png": (b"This is a text, whatever its name says.", "is not a picture"),
    "empty.png": (b"", "0 bytes"),
    "cut.png": (png(Image.new("RGB", (300, 300), "red"))[:200], "damaged or cut off"),
    "huge.png": (png(Image.new("1", (10_000, 10_000))), "100 megapixels"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_pictures_are_one_sentence_and_the_next_one_works(name):
    data, sentence = BAD_PICTURES[name]
    test = app(model="tiny-vit")
    test.file_uploader(key="upload-vision").set_value((name, data, "image/png")).run()
    assert sentence in errors(test)
    test.file_uploader(key="upload-vision").set_value(("seven.png", SEVEN.read_bytes(), "image/png")).run()
    assert not test.error and "Class" in html(test, "says")


BAD_RECORDINGS = {
    "song.wav": (b"ID3 this is no recording at all, and quite long for one", "not a WAV recording"),
    "empty.wav": (b"", "0 bytes"),
    "silent.wav": (wav(0, 16_000), "no samples"),
    "slow.wav": (wav(1, 1_000), "1,000 samples per second"),
    "long.wav": (wav(600, 8_000), "The recording lasts 600 seconds; this model takes at most 30"),
}


@pytest.mark.parametrize("name", BAD_RECORDINGS)
def test_bad_recordings_are_one_sentence_and_the_next_one_works(whisper_folder, name):
    data, sentence = BAD_RECORDINGS[name]
    test = app(model="whisper-tiny-en")
    test.file_uploader(key="upload-audio").set_value((name, data, "audio/wav")).run()
    assert sentence in errors(test)
    test.file_uploader(key="upload-audio").set_value(("front.wav", SPEECH.read_bytes(), "audio/wav")).run()
    assert not test.error and "1.43 s in 1,500 frames" in html(test, "headline")


def test_a_recording_is_shown_to_its_end(whisper_folder, drawn):
    app(model="whisper-tiny-en")  # the first example
    cap = capture(load("whisper-tiny-en"), read_wav(SPEECH))
    call = cap.find(1, "cross")
    assert recorded(cap, call) == (0, call.queries, 0, 72)  # 1.43 s in steps of 0.02 s
    frames = drawn["matrix"].columns
    assert frames.sound.step == 0.02 and frames.whole == 1500 and len(frames) == 72
    assert head_view(cap, call, 0, region=recorded(cap, call)).values.shape == (call.queries, 72)


def test_memory_comes_back_after_bad_uploads():
    """In a process of its own, since pytest's own memory moves: bad files again and again cost nothing that stays."""
    script = f"""
import gc, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.pages.test_kinds import BAD_PICTURES, BAD_RECORDINGS, resident
from headwise.interp.errors import InputError
from headwise.models import read_image, read_wav
def fail():
    for read, bad in ((read_image, BAD_PICTURES), (read_wav, BAD_RECORDINGS)):
        for name, (data, _) in bad.items():
            try:
                read(data)
            except InputError:
                continue
            assert name == "long.wav", name  # that one is read, and refused by the model
fail()
before = resident()
for _ in range(10):
    fail()
gc.collect()
print(resident() - before)
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=300).stdout
    assert int(out) < 30 * 2**20


def resident() -> int:
    """Bytes of this process in memory now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_the_target_that_the_model_wrote_is_shown_and_is_what_typing_starts_from():
    test = app(model="tiny-encoder-decoder", text="knight")
    wrote = load("tiny-encoder-decoder").encode(("knight", None)).axes["target"].text
    assert f"target: {wrote}" in html(test, "notes")
    test.selectbox(key="mode").set_value("typed").run()
    assert test.text_area(key="target").value == wrote and f"target: {wrote}" in html(test, "notes")
