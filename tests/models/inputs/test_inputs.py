"""What checkpoints make of pictures, recordings and pairs: where each patch, frame and token lies, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from headwise import capture
from headwise.interp.errors import InputError
from headwise.models import load
from headwise.models.inputs.media import Waveform, read_wav
from headwise.models.inputs.pictures import seen_part
from headwise.models.inputs.texts import written_target
from headwise.models.inputs.tokens import TooLong

SPEECH = Path("/usr/share/sounds/alsa/Front_Center.wav")  # Debian's alsa-utils: a woman says "front, center"
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SHAPES = [(300, 300), (600, 300), (200, 600)]


def message(function, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def saved(folder: Path, model, *parts) -> str:
    for part in (model, *parts):
        part.save_pretrained(folder)
    return str(folder)


def vision(folder: Path, kind: str, processor, model: str = "Model", **config):
    settings = getattr(transformers, f"{kind}Config")(**{**SMALL, "image_size": 224, "patch_size": 32, **config})
    return load(saved(folder, getattr(transformers, kind + model)(settings), processor))


def resizing():
    return transformers.ViTImageProcessor()


def cropping():  # as DINOv2's
    return transformers.BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})


def clip():
    return transformers.CLIPImageProcessor()


def padding():
    return transformers.BitImageProcessor(do_resize=False, crop_size={"height": 672, "width": 672})


@pytest.mark.parametrize("width, height", SHAPES)
@pytest.mark.parametrize(
    "kind, processor, config",
    [("ViT", resizing, {}), ("Dinov2", cropping, {}), ("CLIPVision", clip, {}), ("ViT", padding, {"image_size": 672})],
    ids=["resize", "shortest edge and crop", "CLIP", "crop with padding"],
)
def test_a_white_patch_is_where_the_box_says(kind, processor, config, width, height, tmp_path):
    subject = vision(tmp_path, kind, processor(), **config)
    axis = subject.encode(Image.new("RGB", (width, height))).axes["input"]
    (rows, columns), (left, top, right, bottom) = axis.grid, axis.picture.box
    assert len(axis) == 1 + rows * columns and axis.labels[0] == "CLS" and sum(axis.special) == 1
    assert axis.picture.pixels.shape == (height, width, 3)
    places = [
        (left + (right - left) * c / columns, top + (bottom - top) * r / rows)
        for r in range(rows + 1)
        for c in range(columns + 1)
    ]
    inside = [  # patches that lie wholly on the picture
        (r, c)
        for r in range(rows)
        for c in range(columns)
        if places[r * (columns + 1) + c][0] > -0.5
        and places[r * (columns + 1) + c][1] > -0.5
        and places[(r + 1) * (columns + 1) + c + 1][0] < width + 0.5
        and places[(r + 1) * (columns + 1) + c + 1][1] < height + 0.5
    ]
    black = subject.encode(Image.new("RGB", (width, height))).kwargs["pixel_values"]
    white = subject.encode(Image.new("RGB", (width, height), "white")).kwargs["pixel_values"]
    for r, c in (inside[0], inside[len(inside) // 3], inside[-1]):
        x0, y0 = map(round, places[r * (columns + 1) + c])
        x1, y1 = map(round, places[(r + 1) * (columns + 1) + c + 1])
        picture = Image.new("RGB", (width, height))
        picture.paste("white", (x0, y0, x1, y1))
        pixels = subject.encode(picture).kwargs["pixel_values"]
        light = ((pixels - black) / (white - black).clamp_min(1e-6))[0].mean(0)
        light = light.unflatten(0, (rows, -1)).unflatten(-1, (columns, -1)).mean((1, 3))  # (rows, columns)
        assert light[r, c] > 0.93
        light[r, c] = 0
        assert light.max() < 0.05


def crop_of(edge: int, width: int, height: int) -> tuple[float, ...]:
    """What 224 × 224 from the middle of a picture with its shortest side made ``edge`` covers, by hand."""
    short, long = sorted((width, height))
    sides = [edge if side == short else int(edge * long / short) for side in (width, height)]
    starts = [(side - 224) // 2 for side in sides]
    (left, top), (right, bottom) = starts, [start + 224 for start in starts]
    return left * width / sides[0], top * height / sides[1], right * width / sides[0], bottom * height / sides[1]


@pytest.mark.parametrize("width, height", [*SHAPES, (640, 427), (28, 28), (3, 5), (1, 1), (1600, 80), (80, 1600)])
@pytest.mark.parametrize("edge", [224, 256, 518])
def test_the_seen_part_is_the_one_computed_by_hand(edge, width, height):
    size = {"height": 224, "width": 224}
    processor = transformers.BitImageProcessor(size={"shortest_edge": edge}, crop_size=size)
    expected = crop_of(edge, width, height)
    patch = (expected[2] - expected[0]) / 16  # of 14 pixels
    np.testing.assert_allclose(seen_part(processor, width, height), expected, atol=0.05 * patch + 1e-9)
    assert seen_part(resizing(), width, height) == (0, 0, width, height)


@pytest.mark.parametrize(
    "kind, model, config, labels",
    [
        ("ViT", "Model", {}, ("CLS",)),
        ("DeiT", "Model", {}, ("CLS", "DIST")),
        ("Dinov2WithRegisters", "Model", {"num_register_tokens": 4}, ("CLS", "REG 1", "REG 2", "REG 3", "REG 4")),
        ("SiglipVision", "Model", {}, ()),
        ("Beit", "Model", {"use_relative_position_bias": True}, ("CLS",)),
    ],
)
def test_special_tokens_come_before_the_patches(kind, model, config, labels, tmp_path):
    subject = vision(tmp_path, kind, resizing(), model, **config)
    assert subject.family == "vision"
    cap = capture(subject, Image.new("RGB", (80, 60), "red"))
    axis = cap.calls[0].query_axis
    assert axis is cap.axes["input"] and axis.grid == (7, 7)
    assert axis.labels == (*labels, *(f"{r},{c}" for r in range(7) for c in range(7)))
    assert axis.special == (True,) * len(labels) + (False,) * 49


def test_tokens_after_the_patches_give_no_grid(tmp_path):
    subject = vision(tmp_path, "Yolos", resizing(), image_size=[224, 224], num_detection_tokens=5)
    cap = capture(subject, Image.new("RGB", (224, 224)))
    axis = cap.calls[0].query_axis
    assert axis.grid is None and axis.picture is None and len(axis) == 1 + 49 + 5


def test_windows_give_no_grid(tmp_path):
    config = {"embed_dim": 8, "depths": [1, 1], "num_attention_heads": [1, 2], "window_size": 7, "patch_size": 4}
    subject = vision(tmp_path, "Swin", resizing(), **config)
    cap = capture(subject, Image.new("RGB", (224, 224)))
    assert cap.axes["input"].grid is None and len(cap.calls[0].key_axis) == cap.calls[0].keys == 49


def test_what_does_not_fill_a_patch_is_outside_the_box(tmp_path):
    processor = transformers.ViTImageProcessor(size={"height": 50, "width": 50})
    subject = vision(tmp_path, "ViT", processor, image_size=50, patch_size=16)
    axis = capture(subject, Image.new("RGB", (100, 200))).axes["input"]
    assert axis.grid == (3, 3) and axis.picture.box == pytest.approx((0, 0, 96, 192))


def test_pixels_are_those_of_the_processor_and_labels_those_of_the_config(tmp_path):
    names = {0: "cat", 1: "dog", 2: "newt"}
    subject = vision(tmp_path, "ViT", resizing(), "ForImageClassification", id2label=names)
    assert subject.labels == ("cat", "dog", "newt")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    expected = resizing()(images=noise, return_tensors="pt")["pixel_values"]
    assert torch.equal(subject.encode(noise).kwargs["pixel_values"], expected)
    half = load(str(tmp_path), dtype=torch.bfloat16)
    assert capture(half, noise).calls[0].form.q.dtype == torch.bfloat16


def test_a_picture_on_its_side_is_turned_before_it_is_cut_up(tmp_path):
    subject = vision(tmp_path, "ViT", resizing())
    picture = Image.new("RGB", (64, 32), "red")
    picture.getexif()[0x0112] = 6
    assert subject.encode(picture).axes["input"].picture.pixels.shape == (64, 32, 3)


def test_bad_pictures(tmp_path):
    subject = vision(tmp_path, "ViT", resizing())
    assert message(subject.encode, "cat.png") == "Expected a picture, got str. Open it with PIL.Image.open."
    assert "0 × 4 pixels" in message(subject.encode, Image.new("RGB", (0, 4)))
    assert "got pixel_values: list. Make tensors of them" in message(subject.encode, {"pixel_values": [1.0]})
    (tmp_path / "preprocessor_config.json").unlink()
    bare = load(str(tmp_path))
    assert "has no usable image processor" in message(bare.encode, Image.new("RGB", (4, 4)))
    assert len(capture(bare, {"pixel_values": torch.zeros(1, 3, 224, 224)}).calls) == 2


def test_real_patches_of_dinov2(dinov2_folder):
    subject = load(str(dinov2_folder))
    cap = capture(subject, Image.new("RGB", (640, 427), "green"))
    axis = cap.calls[0].key_axis
    assert axis.labels[0] == "CLS" and axis.grid[0] * axis.grid[1] == len(axis) - 1 and axis.picture is not None


# Recordings


def click(at: float, seconds: float, rate: int = 16_000) -> Waveform:
    samples = np.zeros(round(seconds * rate), np.float32)
    samples[round(at * rate)] = 1
    return Waveform(samples, rate)


@pytest.fixture(scope="module")
def whisper(whisper_folder):
    return load(str(whisper_folder))


@pytest.mark.parametrize("at", [0.0, 0.37, 1.5, 29.99])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_click_is_seen_when_it_sounds(whisper, at, rate):
    inputs = whisper.encode((click(at, 30, rate), "click"))
    axis = inputs.axes["source"]
    sound = axis.sound
    assert (sound.hop, sound.step, sound.seconds) == (0.01, 0.02, 30) and len(axis) == 1500
    assert sound.spectrogram.shape == (80, 3000) and sound.spectrogram.dtype == np.float32
    assert np.array_equal(sound.spectrogram, inputs.kwargs["input_features"][0].numpy())
    assert abs(sound.spectrogram.sum(0).argmax() * sound.hop - at) <= sound.hop
    assert axis.labels[int(at / 0.02)] == f"{int(at / 0.02) * 0.02:.2f} s"


def test_low_pitches_come_first(whisper):
    low, high = (
        whisper.encode((Waveform(np.sin(2 * np.pi * tone * np.arange(16_000) / 16_000), 16_000), "a"))
        for tone in (200, 4_000)
    )
    bins = [i.axes["source"].sound.spectrogram[:, :90].mean(1).argmax() for i in (low, high)]
    assert bins[0] < 10 and bins[1] > 50


@pytest.mark.skipif(not SPEECH.exists(), reason=f"{SPEECH} comes with apt-get install alsa-utils")
def test_whisper_writes_what_was_said(whisper):
    recording = read_wav(SPEECH)
    cap = capture(whisper, recording)
    assert cap.stacks == ("encoder", "decoder", "cross")
    target = cap.axes["target"]
    assert target.text == " Front, center." and target.labels[:2] == ("<|startoftranscript|>", "<|notimestamps|>")
    assert target.labels[2:] == (" Front", ",", " center", ".", "<|endoftext|>")
    assert [target.text[a:b] for a, b in target.offsets] == ["", "", " Front", ",", " center", ".", ""]
    assert target.special == (True, True, False, False, False, False, True)
    assert cap.notes == ("resampled from 48,000 to 16,000 Hz", "the model wrote the target itself (greedy)")
    cross = cap.stack("cross")[0]
    assert cross.query_axis is target and cross.key_axis is cap.axes["source"]
    assert cap.axes["source"].sound.seconds == pytest.approx(recording.seconds, abs=1e-3)
    # logits of each position choose the next token, so what is read is what was written
    assert cap.logits[0, 1:-1].argmax(-1).tolist() == cap.inputs.kwargs["decoder_input_ids"][0, 2:].tolist()
    typed = whisper.encode((recording, "Front, center."))
    assert typed.axes["target"] == target and typed.notes == ("resampled from 48,000 to 16,000 Hz",)
    samples = whisper.encode((recording.samples[::3], None)).kwargs["decoder_input_ids"]  # at the model's rate
    assert samples.shape[1] > 2
    for nothing in (None, ""):
        written = whisper.encode((recording, nothing)).kwargs["decoder_input_ids"]
        assert torch.equal(written, cap.inputs.kwargs["decoder_input_ids"])


def test_bad_recordings(whisper):
    second = click(0, 1)
    assert message(whisper.encode, (second, "  ")) == (
        "The target is empty. Type one, or leave the field empty to let the model write it."
    )
    assert message(whisper.encode, "a text").startswith("Expected a recording, got str.")
    assert "shape (N,), got (16000, 2)" in message(whisper.encode, np.zeros((16_000, 2)))
    assert message(whisper.encode, torch.zeros(0)) == "The recording has no samples. Record it again."
    assert "NaN or infinite" in message(whisper.encode, torch.tensor([0.0, float("nan")]))
    with pytest.raises(TooLong, match=r"The recording lasts 31 seconds; this model takes at most 30\."):
        whisper.encode((click(0, 31), "a"))
    cut = whisper.encode((click(0, 31), "a"), truncate=True)
    assert cut.axes["source"].sound.seconds == 30 and "recording cut from 31.0 to 30 seconds" in cut.notes


def wav2vec2(folder: Path, **config):
    settings = transformers.Wav2Vec2Config(
        **SMALL, vocab_size=20, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **config
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    return load(saved(folder, transformers.Wav2Vec2ForCTC(settings), extractor))


@pytest.mark.parametrize("seconds", [0.4, 3.0])
def test_wav2vec2_frames(seconds, tmp_path):
    subject = wav2vec2(tmp_path, conv_dim=(8,) * 7, feat_extract_norm="layer")
    at = seconds * 0.8 + 0.005  # the middle of a column
    cap = capture(subject, click(at, seconds, 48_000))
    axis, call = cap.axes["input"], cap.calls[0]
    assert subject.family == "audio" and call.query_axis is axis and len(axis) == call.queries
    sound = axis.sound
    assert sound.step == 0.02 and sound.seconds == pytest.approx(seconds)  # strides 5·2⁶ of 16,000 Hz
    assert (sound.spectrogram.sum(0).argmax() + 0.5) * sound.hop == pytest.approx(at)
    assert sound.spectrogram.shape[1] == round(seconds / sound.hop)
    # the convolutions see the click at the position whose time it is: 25 ms wide, 20 ms apart
    quiet = subject.encode(Waveform(np.zeros(round(seconds * 16_000), np.float32), 16_000)).kwargs["input_values"]
    heard = quiet.clone()
    heard[0, round(at * 16_000)] = 1
    with torch.no_grad():
        features = [subject.module.wav2vec2.feature_extractor(x)[0] for x in (quiet, heard)]
    changed = (features[1] - features[0]).abs().sum(0).argmax().item()
    assert changed == pytest.approx(at / sound.step, abs=1.01)


def test_bad_recordings_for_a_model_that_writes_nothing(tmp_path):
    subject = wav2vec2(tmp_path, conv_dim=(8,) * 7)
    assert message(subject.encode, (click(0, 1), "words")) == ("This model writes no target. Give the recording alone.")
    assert "too short for this model" in message(subject.encode, np.zeros(300))
    with pytest.raises(TooLong, match="at most 60"):
        subject.encode(click(0, 61))
    (tmp_path / "preprocessor_config.json").unlink()
    assert "has no usable feature extractor" in message(load(str(tmp_path)).encode, click(0, 1))


# Pairs


def words() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, as BERT's treats them: lower case, [CLS] a [SEP] b [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, "the", "cat", "sat"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    names = {f"{name.strip('[]').lower()}_token": name for name in special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, model_input_names=inputs, **names)


def bert(folder: Path, model: str, **config):
    settings = transformers.BertConfig(vocab_size=20, max_position_embeddings=32, **SMALL, **config)
    return load(saved(folder, getattr(transformers, model)(settings), words()))


def test_a_masked_language_model_knows_its_mask(tmp_path):
    subject = bert(tmp_path, "BertForMaskedLM")
    assert subject.mask_token == 4 and subject.labels == () and subject.eos is None
    inputs = subject.encode("The [MASK] sat")
    assert inputs.kwargs["input_ids"].tolist() == [[2, 5, 4, 7, 3]]
    axis = inputs.axes["input"]
    assert axis.special == (True, False, False, False, True) and axis.text[slice(*axis.offsets[2])] == "[MASK]"


def test_a_classifier_knows_its_labels(tmp_path):
    subject = bert(tmp_path, "BertForSequenceClassification", id2label={1: "good", 0: "bad"})
    assert subject.labels == ("bad", "good") and subject.mask_token is None


def test_pairs_of_an_encoder(tmp_path):
    encode = bert(tmp_path, "BertModel").encode
    assert encode(("the cat", "sat")).kwargs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    for nothing in (None, ""):
        assert len(encode(("the cat", nothing)).axes["input"]) == 4
    sentence = "Type a sentence to see how the model reads it."
    assert message(encode, " ") == f"The text is empty. {sentence}"
    assert message(encode, (" ", "cat")) == f"The first text is empty. {sentence}"
    assert message(encode, ("cat", " ")) == f"The second text is empty. {sentence}"
    assert message(encode, 3).startswith("Expected a text, got int.")


def test_a_list_of_texts_is_a_batch(minilm_folder):
    subject = load(str(minilm_folder))
    texts = ["Hello, my dog is cute", "This is a much longer text than the other one"]
    cap = capture(subject, texts)
    assert cap.calls[0].batch == 2 and "a batch of 2 texts" in cap.notes and not cap.axes
    lengths = cap.inputs.real.sum(1).tolist()
    for i, text in enumerate(texts):
        alone = capture(subject, text)
        assert lengths[i] == alone.calls[0].queries
        for call, single in zip(cap.calls, alone.calls, strict=True):
            part = call.weights(3)[i, : lengths[i], : lengths[i]]
            torch.testing.assert_close(part, single.weights(3)[0], atol=1e-5, rtol=1e-4)
    assert message(subject.encode, []) == "The list of texts is empty. Give at least one."
    assert message(subject.encode, ["one", " "]).startswith("The text is empty.")


@pytest.mark.parametrize("name", ["tiny-decoder", "tiny-encoder", "tiny-encoder-decoder", "tiny-vit"])
def test_a_list_is_never_a_pair(name):
    assert message(load(name).encode, ["one text", "another"]) == (
        "Expected one input, got a list of 2. Give them one by one; a pair is a tuple: (first, second)."
    )


def test_a_list_is_no_source_and_target(tmp_path):
    assert message(t5(tmp_path).encode, ["abc", "d"]).startswith("Expected one input, got a list of 2.")


def t5(folder: Path, model: str = "T5ForConditionalGeneration"):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {s: i for i, s in enumerate(["<pad>", "</s>", "<unk>", *sorted(alphabet)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    settings = transformers.T5Config(
        vocab_size=len(vocabulary), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return load(saved(folder, getattr(transformers, model)(settings), fast))


def test_a_typed_target_has_places_in_its_text(tmp_path):
    subject = t5(tmp_path)
    assert subject.eos == 1
    inputs = subject.encode(("ab", "né🙂"))
    target = inputs.axes["target"]
    assert target.text == "né🙂" and inputs.kwargs["decoder_input_ids"][0, 0] == 0
    assert target.labels == ("<pad>", "n", "é 1/2", "é 2/2", *(f"🙂 {i}/4" for i in (1, 2, 3, 4)), "</s>")
    assert target.offsets == ((0, 0), (0, 1), (1, 2), (1, 2), *((2, 3),) * 4, (0, 0))
    assert target.special == (True, *(False,) * 7, True) and inputs.notes == ()


def test_a_written_target_is_what_generate_makes(tmp_path):
    subject = t5(tmp_path)
    source = subject.encode(("abc", "x")).kwargs["input_ids"]
    expected = subject.module.generate(input_ids=source, max_new_tokens=40, do_sample=False)
    for raw in ("abc", ("abc", None), ("abc", "")):
        inputs = subject.encode(raw)
        target = inputs.axes["target"]
        assert torch.equal(inputs.kwargs["decoder_input_ids"], expected)
        assert any(note.startswith("the model wrote the target itself (greedy") for note in inputs.notes)
        ends = [end for _, end in target.offsets]
        assert len(target) == len(target.offsets) == expected.shape[1] and ends == sorted(ends)
        assert target.text == subject.decode(expected[0].tolist(), skip_special_tokens=True)


def test_a_written_target_has_the_places_of_a_typed_one(tmp_path):
    subject = t5(tmp_path)
    inputs = subject.encode(("ab", "né🙂"))
    typed = inputs.axes["target"]
    ids = inputs.kwargs["decoder_input_ids"][0].tolist()
    _, written, _ = written_target(transformers.AutoTokenizer.from_pretrained(tmp_path), ids, None, False)
    assert (written.labels, written.special, written.text) == (typed.labels, typed.special, typed.text)
    assert written.offsets[:-1] == typed.offsets[:-1] and written.offsets[-1] == (3, 3)


def test_bad_pairs(tmp_path):
    encode = t5(tmp_path).encode
    assert message(encode, ("abc", " \n")) == (
        "The target is empty. Type one, or leave the field empty to let the model write it."
    )
    assert message(encode, (" ", "abc")).startswith("The source text is empty.")
    assert message(encode, ("abc", 3)).startswith("Expected a target text, got int.")
    for pair in (("a" * 99, "b"), ("b", "a" * 99)):
        with pytest.raises(TooLong):
            encode(pair)
        assert any("cut from" in note for note in encode(pair, truncate=True).notes)
    bare = t5(tmp_path / "bare", "T5Model")
    assert message(bare.encode, "abc") == ("T5Model has no output head, so it cannot write the target. Type one.")
    assert len(bare.encode(("abc", "d")).axes["target"]) == 3


def test_real_pairs_of_bart(bart_folder):
    subject = load(str(bart_folder))
    target = capture(subject, "transformer").axes["target"]
    assert target.text == "tɹænsfˈɔɹməɹ"
    assert [target.text[a:b] for (a, b), s in zip(target.offsets, target.special, strict=True) if not s] == [
        *target.text
    ]
