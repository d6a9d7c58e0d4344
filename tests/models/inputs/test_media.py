"""Pictures and recordings from files: what is opened, what is refused, and that size is checked before decoding."""

import io
import math
import struct
import subprocess
import sys
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from headwise.interp.errors import InputError
from headwise.models.inputs.media import Waveform, picture_of, read_image, read_wav, resample, shortened, upright_rgb
from headwise.models.inputs.tokens import TooLong

COLOURS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def wav_of(samples: np.ndarray, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, samples)
    return buffer.getvalue()


def message(function, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "WebP", "BMP", "TIFF"])
def test_a_lossless_picture_arrives_pixel_by_pixel(kind, tmp_path):
    data = file_of(Image.fromarray(COLOURS), kind, **({"lossless": True} if kind == "WebP" else {}))
    image = read_image(data)
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), COLOURS)
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert np.array_equal(np.asarray(read_image(path)), COLOURS)


def test_a_photograph_that_lies_on_its_side_is_turned_upright():
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (0, 0, 20, 20))  # left half blue
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera says: turn clockwise by 90° to look at it
    upright = read_image(file_of(picture, "JPEG", exif=exif, quality=95, subsampling=0))
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[2] > 200 > upright.getpixel((10, 35))[2]  # what was left is above
    assert not upright.getexif().get(0x0112)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("green", "red", "blue")]
    assert read_image(file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((2, 2)) == (
        0,
        128,
        0,
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode):
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 255))
    options = {}
    if mode == "P":
        clear = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
        clear.putpalette([0, 0, 0, 0, 0, 0])
        options["transparency"] = 0
    image = read_image(file_of(clear if mode == "P" else clear.convert(mode), **options))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_sixteen_bits_of_grey_become_eight():
    grey = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    assert np.array_equal(np.asarray(read_image(file_of(grey)))[..., 0].ravel(), np.arange(256))


def test_samples_of_32_bits_are_refused():
    assert "32 bits" in message(read_image, file_of(Image.new("F", (4, 4)), "TIFF"))


def test_a_large_photograph_is_made_smaller():
    photo = Image.new("RGB", (5000, 2500), "navy")
    assert read_image(file_of(photo, "JPEG")).size == (2048, 1024)
    assert read_image(file_of(photo, "PNG")).size == (2048, 1024)


PEAK = """
import resource, sys
from pathlib import Path
from headwise.interp.errors import InputError
from headwise.models.inputs.media import read_image
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
for kind in sys.argv[2:]:
    read_image(Path(sys.argv[1], f"small.{kind}"))  # imports the decoder
    before = peak()
    try:
        read_image(Path(sys.argv[1], f"big.{kind}"))
    except InputError as error:
        print(kind, peak() - before, error)
"""


def test_a_picture_of_100_megapixels_costs_its_header_alone(tmp_path):
    kinds = ("PNG", "BMP", "TIFF", "GIF", "JPEG", "WebP")
    for kind in kinds:
        options = {"TIFF": {"compression": "group4"}, "WebP": {"method": 0}}.get(kind, {})
        for name, side in (("big", 10_000), ("small", 10)):
            image = Image.new({"JPEG": "L", "WebP": "RGB"}.get(kind, "1"), (side, side))
            image.save(tmp_path / f"{name}.{kind}", kind, **options)
    run = [sys.executable, "-c", PEAK, tmp_path, *kinds]
    said = subprocess.run(run, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True).stdout
    lines = [line.split(" ", 2) for line in said.splitlines()]
    assert [line[0] for line in lines] == list(kinds)
    for kind, grown, error in lines:
        assert error == (
            "The picture is 10,000 × 10,000 pixels, 100 megapixels; at most 40 are opened. Make it smaller."
        )
        assert int(grown) < 4_000, kind  # decoded it is 12 MB at one bit a pixel, 300 MB as RGB


def test_a_picture_far_beyond_is_refused_by_its_header():
    header = bytearray(file_of(Image.new("1", (8, 8))))
    header[16:24] = struct.pack(">II", 60_000, 60_000)
    assert "far more than 40 megapixels" in message(read_image, _with_checksum(header))


def _with_checksum(png: bytearray) -> bytes:
    """A PNG whose header was changed, with its checksum made right again."""
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


def test_files_that_are_no_picture(tmp_path):
    assert message(read_image, b"") == "The picture is empty: its file has 0 bytes. Choose another file."
    assert message(read_image, b"%PDF-1.7 and more") == (
        "This file is not a picture that can be opened. Use PNG, JPEG, WebP, GIF, BMP or TIFF."
    )
    assert "PNG, JPEG, WebP, GIF, BMP or TIFF" in message(read_image, file_of(Image.new("RGB", (4, 4)), "PPM"))
    assert message(read_image, tmp_path / "none.png").startswith("There is no file")
    nothing = file_of(Image.new("P", (4, 4)), "GIF").replace(b"\4\0\4\0", bytes(4))  # the screen and the frame
    assert message(read_image, nothing).startswith("This file is not a picture")
    assert "0 × 4 pixels" in message(upright_rgb, Image.new("RGB", (0, 4)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WebP"])
def test_a_picture_that_breaks_off(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = file_of(noise, kind)
    said = message(read_image, whole[: len(whole) // 2])
    assert said.startswith(("This picture is damaged or cut off", "This file is not a picture"))
    assert "\n" not in said


def test_any_damage_is_one_sentence():
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WebP"):
        whole = file_of(Image.fromarray(COLOURS), kind)
        for _ in range(60):
            broken = bytearray(whole)
            for place in random.integers(0, len(broken), 4):
                broken[place] = random.integers(256)
            try:
                image = read_image(bytes(broken))
            except InputError as error:
                assert "\n" not in str(error)
            else:
                assert image.mode == "RGB"


def test_the_shown_picture_is_small_and_its_box_with_it():
    picture = picture_of(Image.new("RGB", (1280, 960), "white"), (160, 0, 1120, 960))
    assert picture.pixels.shape == (480, 640, 3) and picture.pixels.dtype == np.uint8
    assert picture.box == (80, 0, 560, 480)
    assert picture_of(Image.new("RGB", (30, 20)), (-5, 0, 35, 20)).box == (-5, 0, 35, 20)


SINE = np.sin(np.linspace(0, 40 * np.pi, 1600))


@pytest.mark.parametrize(
    "samples, tolerance",
    [
        (np.round(SINE * 127 + 128).astype(np.uint8), 1 / 80),
        (np.round(SINE * 32767).astype(np.int16), 1e-4),
        (np.round(SINE * 2147483647).astype(np.int32), 1e-6),
        (SINE.astype(np.float32), 1e-7),
        (SINE, 1e-7),
    ],
    ids=lambda v: str(getattr(v, "dtype", "")),
)
def test_samples_of_every_type_lie_in_one(samples, tolerance, tmp_path):
    path = tmp_path / "sine.wav"
    path.write_bytes(wav_of(samples))
    for given in (path, path.read_bytes()):
        waveform = read_wav(given)
        assert waveform.rate == 16_000 and waveform.samples.dtype == np.float32 and not waveform.notes
        assert waveform.seconds == pytest.approx(0.1)
        np.testing.assert_allclose(waveform.samples, SINE, atol=tolerance)


def test_24_bits_and_two_channels(tmp_path):
    path = tmp_path / "stereo.wav"
    values = np.array([[0.5, 0.0], [-1.0, -1.0], [0.25, -0.25], [0.0, 1 - 2**-23]])
    with wave.open(str(path), "wb") as file:  # the standard library writes it, scipy reads it
        file.setnchannels(2), file.setsampwidth(3), file.setframerate(8_000)
        file.writeframes(b"".join(int(v * 2**23).to_bytes(3, "little", signed=True) for v in values.ravel()))
    np.testing.assert_allclose(read_wav(path).samples, values.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(read_wav(path.read_bytes()).samples, values.mean(axis=1), atol=1e-6)


def test_a_recording_that_breaks_off_keeps_what_is_there(tmp_path):
    stereo = np.stack([np.arange(1000), np.arange(1000)], axis=1).astype(np.int16)
    path = tmp_path / "broken.wav"
    path.write_bytes(wav_of(stereo)[: 44 + 4 * 300 + 3])  # in the middle of a frame
    waveform = read_wav(path)
    np.testing.assert_allclose(waveform.samples * 32768, np.arange(300), atol=1e-3)
    assert waveform.notes == ("the recording breaks off before the length its header gives",)


def test_a_recording_from_a_pipe_has_no_length_in_its_header():
    piped = bytearray(wav_of(np.arange(1000, dtype=np.int16)))
    piped[4:8] = piped[40:44] = b"\xff\xff\xff\xff"
    waveform = read_wav(bytes(piped))
    np.testing.assert_allclose(waveform.samples * 32768, np.arange(1000), atol=1e-3)
    assert not waveform.notes


def test_a_recording_beyond_one_is_scaled_down():
    waveform = read_wav(wav_of(np.array([0, 2, -4], dtype=np.float32)))
    assert waveform.samples.tolist() == [0, 0.5, -1] and waveform.notes == (
        "samples reach 4, so the recording was scaled down to 1",
    )


def test_files_that_are_no_recording(tmp_path):
    assert message(read_wav, b"") == "The recording is empty: its file has 0 bytes. Choose another file."
    said = message(read_wav, b"ID3\x04 an mp3 or so" * 9)
    assert said.startswith("This file is not a WAV recording that can be read")
    assert said.endswith("Convert it: ffmpeg -i in -ar 16000 -ac 1 out.wav.")
    assert message(read_wav, tmp_path / "none.wav").startswith("There is no file")
    assert message(read_wav, wav_of(np.zeros(0, np.int16))) == "The recording has no samples. Record it again."
    assert "NaN or infinite" in message(read_wav, wav_of(np.array([0, np.nan], np.float32)))
    assert "3,999 samples per second" in message(read_wav, wav_of(np.zeros(9, np.int16), 3_999))
    assert "192,001 samples per second" in message(read_wav, wav_of(np.zeros(9, np.int16), 192_001))


def test_any_damage_of_a_header_is_one_sentence():
    random = np.random.default_rng(0)
    whole = wav_of(np.arange(100, dtype=np.int16))
    for _ in range(300):
        broken = bytearray(whole)
        for place in random.integers(0, 44, 2):
            broken[place] = random.integers(256)
        try:
            waveform = read_wav(bytes(broken[: random.integers(12, len(broken))]))
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(waveform.samples).all()


def test_resampling_keeps_what_is_heard():
    rate, tone = 44_100, 440
    given = Waveform(np.sin(2 * np.pi * tone * np.arange(rate) / rate).astype(np.float32), rate)
    made, notes = resample(given, 16_000)
    assert notes == ("resampled from 44,100 to 16,000 Hz",)
    assert made.rate == 16_000 and len(made.samples) == 16_000 and made.samples.dtype == np.float32
    expected = np.sin(2 * np.pi * tone * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(made.samples[200:-200], expected[200:-200], atol=2e-3)
    high = Waveform(np.sin(2 * np.pi * 12_000 * np.arange(rate) / rate).astype(np.float32), rate)
    assert (
        np.abs(resample(high, 16_000)[0].samples[200:-200]).max() < 0.01
    )  # above half the rate: gone, not folded down
    assert resample(made, 16_000) == (made, ())


def test_a_long_recording_is_cut_when_that_is_allowed():
    long = Waveform(np.zeros(600 * 8_000, np.float32), 8_000)
    with pytest.raises(TooLong) as caught:
        shortened(long, 30, truncate=False)
    assert str(caught.value) == (
        "The recording lasts 600 seconds; this model takes at most 30. Shorten it, or allow it to be cut after 30 "
        "seconds."
    )
    assert (caught.value.limit, caught.value.unit) == (30, "seconds")
    kept, notes = shortened(long, 30, truncate=True)
    assert kept.seconds == 30 and notes == ("recording cut from 600.0 to 30 seconds",)
    assert "lasts 30.1 seconds" in message(shortened, Waveform(np.zeros(30 * 8_000 + 1, np.float32), 8_000), 30, False)
    assert math.isclose(shortened(kept, 30, truncate=False)[0].seconds, 30)
