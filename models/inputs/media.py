"""Pictures and recordings from files: checked, bounded, upright, in the form that encoders take."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy.io import wavfile

from headwise.interp.attention.axes import PixelGrid
from headwise.interp.errors import InputError
from headwise.models.inputs.tokens import TooLong

FORMATS = ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF")
MAX_MEGAPIXELS = 40  # decoded, 120 MB
MAX_SIDE = 2048  # pixels; no model here looks at more
SHOWN_SIDE = 640  # pixels of a picture that is drawn under a grid of patches
RATES = (4_000, 192_000)  # Hz
CONVERT = "Convert it: ffmpeg -i in -ar 16000 -ac 1 out.wav."


@dataclass(frozen=True, eq=False)
class Waveform:
    """A recording of one channel: ``samples`` (N,) float32 in −1 … 1, ``rate`` of them per second. ``notes`` say
    what was done to the file's."""

    samples: np.ndarray
    rate: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def read_image(data: bytes | Path) -> Image.Image:
    """A picture file → RGB, turned upright, at most 2,048 pixels a side; the first frame of an animation,
    transparency on white.

    Its size is read from the header, so that a picture too large costs nothing. Raises InputError.
    """
    data = _present(data, "picture")
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS) as image:
            width, height = image.size
            _check_size(width, height)
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a JPEG is decoded at a fraction of its size
            image.load()
            upright = upright_rgb(image)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"This picture has far more than {MAX_MEGAPIXELS} megapixels, the most that is opened. Make it smaller."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"This file is not a picture that can be opened. Use {_formats()}.") from error
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError … for one damaged file or another
        raise InputError(f"This picture is damaged or cut off ({_reason(error)}). Save it again as PNG.") from error
    upright.thumbnail((MAX_SIDE, MAX_SIDE))
    return upright


def upright_rgb(image: Image.Image) -> Image.Image:
    """RGB, turned as its EXIF says, transparency on white. Raises InputError for a picture without pixels, and for
    samples of 32 bits, whose range nothing tells."""
    if not (image.width and image.height):
        raise InputError(f"The picture has {image.width} × {image.height} pixels. Choose another one.")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError("This picture has 32 bits a sample, and no model takes that. Save it as an 8-bit picture.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


def picture_of(image: Image.Image, box: tuple[float, float, float, float]) -> PixelGrid:
    """What an axis of patches lies on: an RGB image and the ``box`` in it that they cover, both made smaller to at
    most 640 pixels a side."""
    small = image.copy()
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    scale = (small.width / image.width, small.height / image.height) * 2
    return PixelGrid(np.array(small), tuple(edge * factor for edge, factor in zip(box, scale, strict=True)))


def read_wav(data: bytes | Path) -> Waveform:
    """A WAV file, PCM of 8 to 64 bits or float → its channels averaged. One that breaks off keeps what is there, with
    a note. Raises InputError."""
    data = _present(data, "recording")
    notes = ()
    try:
        try:
            if isinstance(data, bytes):
                raise ValueError("not a file")
            rate, samples = wavfile.read(data, mmap=True)
        except ValueError:  # bytes, or a file that cannot be mapped: 24 bits, or shorter than it says
            data = data if isinstance(data, bytes) else data.read_bytes()
            data, missing = _completed(data)
            notes = ("the recording breaks off before the length its header gives",) if missing else ()
            rate, samples = wavfile.read(io.BytesIO(data))
    except Exception as error:  # scipy raises ValueError, struct.error, ZeroDivisionError … for one file or another
        raise InputError(f"This file is not a WAV recording that can be read ({_reason(error)}). {CONVERT}") from error
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"The recording has {rate:,} samples per second; 4,000 to 192,000 are read. {CONVERT}")
    if not samples.size:
        raise InputError("The recording has no samples. Record it again.")
    channels = samples.T if samples.ndim > 1 else samples[None]
    mono = sum(_scaled(channel) / len(channels) for channel in channels)  # one at a time, to keep memory small
    if not np.isfinite(mono).all():
        raise InputError(f"The recording has samples that are NaN or infinite. {CONVERT}")
    if (peak := float(np.abs(mono).max())) > 1:
        mono, notes = mono / peak, (*notes, f"samples reach {peak:.3g}, so the recording was scaled down to 1")
    return Waveform(mono.astype(np.float32), int(rate), notes)


def resample(waveform: Waveform, rate: int) -> tuple[Waveform, tuple[str, ...]]:
    """The recording at another ``rate`` in Hz, and the note to show. Polyphase, with an antialiasing filter."""
    if waveform.rate == rate:
        return waveform, ()
    from scipy.signal import resample_poly  # here, because it takes most of a second to import

    common = math.gcd(rate, waveform.rate)
    samples = resample_poly(waveform.samples, rate // common, waveform.rate // common).astype(np.float32)
    return Waveform(samples, rate, waveform.notes), (f"resampled from {waveform.rate:,} to {rate:,} Hz",)


def shortened(waveform: Waveform, limit: float, truncate: bool) -> tuple[Waveform, tuple[str, ...]]:
    """The first ``limit`` seconds and the note to show. Raises TooLong unless cutting is allowed."""
    if waveform.seconds <= limit:
        return waveform, ()
    if not truncate:
        raise TooLong(waveform.seconds, limit, "seconds")
    kept = Waveform(waveform.samples[: int(limit * waveform.rate)], waveform.rate, waveform.notes)
    return kept, (f"recording cut from {waveform.seconds:,.1f} to {limit:,g} seconds",)


def _present(data: bytes | Path, what: str) -> bytes | Path:
    if not isinstance(data, bytes):
        data = Path(data).expanduser()
        if not data.is_file():
            raise InputError(f"There is no file {data}. Give the path of a {what}.")
    if not (len(data) if isinstance(data, bytes) else data.stat().st_size):
        raise InputError(f"The {what} is empty: its file has 0 bytes. Choose another file.")
    return data


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise InputError(
            f"The picture is {width:,} × {height:,} pixels, {width * height / 1e6:,.0f} megapixels; at most "
            f"{MAX_MEGAPIXELS} are opened. Make it smaller."
        )


def _formats() -> str:
    return f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:120]


def _scaled(channel: np.ndarray) -> np.ndarray:
    """Samples of any type → float32 in −1 … 1. Eight bits are unsigned in WAV, more are signed."""
    if channel.dtype.kind == "u":
        return (channel.astype(np.float32) - 128) / 128
    scale = 2.0 ** (8 * channel.dtype.itemsize - 1) if channel.dtype.kind == "i" else 1.0
    return channel.astype(np.float32) / np.float32(scale)


def _completed(data: bytes) -> tuple[bytes, bool]:
    """The file with its data chunk's length set to what is there, and whether the header had promised more.

    Recorders that write to a pipe cannot know the length and put 2³² − 1, which is no promise.
    """
    place, frame = 12, 1  # after "RIFF", size, "WAVE"
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if kind == b"fmt ":
            frame = max(1, int.from_bytes(data[place + 20 : place + 22], "little"))
        if kind == b"data":
            there = len(data) - place - 8
            if size <= there or data[:4] != b"RIFF":
                break
            keep = there - there % frame
            whole = data[: place + 4] + keep.to_bytes(4, "little") + data[place + 8 : place + 8 + keep]
            return whole, size != 0xFFFFFFFF
        place += 8 + size + size % 2
    return data, False
