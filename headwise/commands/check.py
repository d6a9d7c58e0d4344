"""``headwise check``: the check from the command line, for a script or a continuous build.

Exit status: 0 clean, 1 findings, 2 it could not run, with one sentence on stderr.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

SIZES = {  # what configurations call their sizes; each architecture takes those it knows
    "vocab_size": 97, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "num_hidden_layers": 2, "n_layer":
    2, "n_layers": 2, "num_layers": 2,
    "num_decoder_layers": 2, "encoder_layers": 2, "decoder_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "n_heads": 4, "num_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
    "hidden_dim": 48, "d_ff": 48,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "ffn_dim": 48, "n_inner": 48, "max_position_embeddings": 64,
    "n_positions": 64, "n_ctx": 64,
    "max_target_positions": 64, "max_source_positions": 40, "d_kv": 8, "head_dim": 8, "rotary_dim": 4,
    "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1, "word_embed_proj_dim": 32, "num_experts": 4, "num_local_experts":
    4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 24, "sliding_window": 8, "image_size": 16, "patch_size": 4,
}  # fmt: skip


def add(commands) -> None:
    command = commands.add_parser(
        "check",
        help="find out whether a model keeps its mask",
        description="Run a model on changed inputs and see whether its outputs depend on "
        "what its mask forbids. FILE.py:factory names a function "
        "that returns an nn.Module, or (module, options), options being "
        "keyword arguments of headwise.check. The file's code is run.",
    )
    command.add_argument("factory", metavar="FILE.py:factory", nargs="?")
    command.add_argument(
        "--hf", metavar="ORG/NAME|FOLDER", help="a Hugging Face model, or a bundled one, in place of a file"
    )
    command.add_argument(
        "--hf-config", metavar="KIND", help="a tiny random model of an architecture, such as bert or llama; no weights"
    )
    command.add_argument(
        "--is-decoder", action="store_true", help="with --hf-config: set is_decoder, and expect a causal mask"
    )
    command.add_argument(
        "--expect",
        metavar="MASK",
        help="causal, bidirectional, window:8, prefix:4, packed:0,0,1, or an expression like 'Causal() & Window(7, 0)'",
    )
    command.add_argument("--json", action="store_true", help="print the report as JSON and nothing else")
    command.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page")
    command.add_argument("--markdown", metavar="FILE", type=Path, help="write the report as Markdown")
    command.add_argument("--budget", metavar="SECONDS", type=float, default=120.0, help="default 120")
    command.add_argument("--length", metavar="T", type=int, help="length of the random inputs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from headwise.interp.check import CheckError  # here, so that --help needs no torch

    given = [a for a in (arguments.factory, arguments.hf, arguments.hf_config) if a]
    if len(given) != 1:
        return _fail("check expects one of FILE.py:factory, --hf or --hf-config.")
    try:
        with redirect_stdout(sys.stderr), _limit(arguments.budget):  # what the model prints must not end up in the JSON
            model, options = _model(arguments)
            report = _check(model, options, arguments)
        for path, text in ((arguments.html, report.to_html), (arguments.markdown, report.to_markdown)):
            if path is not None:
                path.write_text(text(), encoding="utf-8")
    except (CheckError, OSError) as error:
        return _fail(error)
    print(report.to_json() if arguments.json else report)
    return 0 if report.ok else 1


def _fail(error: object) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _check(model, options: dict, arguments):
    from headwise.interp.check import CheckError, check

    options = {"budget": arguments.budget, "length": arguments.length, **options}
    if arguments.expect:
        options["expect"] = arguments.expect
    elif arguments.is_decoder:
        options.setdefault("expect", "causal")
    progress = _progress() if sys.stderr.isatty() and not arguments.json else None
    try:
        return check(model, progress=progress, **options)
    except CheckError:
        raise
    except TypeError as error:
        if "unexpected keyword argument" in str(error) and "check()" in str(error):
            raise CheckError(f"the factory's options are no arguments of check: {error}.") from error
        raise CheckError(f"the check of {type(model).__name__} stopped: {type(error).__name__}: {error}.") from error
    except Exception as error:  # a model's code may raise anything; the exit code must say that no check was made
        raise CheckError(f"the check of {type(model).__name__} stopped: {type(error).__name__}: {error}.") from error


def _progress() -> Callable[[str, float], None]:
    return lambda name, share: print(f"\r{share:4.0%} {name:<50}", end="\n" if share == 1 else "", file=sys.stderr)


def _model(arguments) -> tuple[Any, dict]:
    if arguments.hf:
        return _loaded(arguments.hf), {}
    if arguments.hf_config:
        return tiny(arguments.hf_config, arguments.is_decoder), {}
    return _made(arguments.factory)


def _loaded(name: str):
    from headwise.interp.check import CheckError
    from headwise.interp.errors import LoadError
    from headwise.models import load

    try:
        return load(name)
    except LoadError as error:
        raise CheckError(str(error)) from error


def tiny(kind: str, is_decoder: bool = False):
    """A tiny random model of a Hugging Face architecture, from its configuration alone. Raises CheckError for an
    unknown kind.
    """
    from headwise.interp.check import CheckError, seeded

    try:
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
        from transformers.models.auto import modeling_auto
    except ImportError as error:
        raise CheckError("--hf-config needs transformers: pip install transformers.") from error
    try:
        plain = AutoConfig.for_model(kind)
        sizes = {name: value for name, value in SIZES.items() if hasattr(plain, name)}
        config = AutoConfig.for_model(kind, **sizes, **({"is_decoder": True} if is_decoder else {}))
    except Exception as error:  # configurations raise whatever they like for sizes that do not fit
        known = (
            "unknown model type"
            if "Unrecognized model" in str(error) or isinstance(error, ValueError)
            else "its configuration does not take tiny sizes"
        )
        raise CheckError(f"--hf-config {kind}: {known} ({str(error).splitlines()[0][:160]}).") from error
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.is_encoder_decoder:
        maker = AutoModelForSeq2SeqLM
    elif kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (is_decoder or not masked):
        maker = AutoModelForCausalLM
    else:
        maker = AutoModel
    try:
        with seeded(0):
            return maker.from_config(config).eval()
    except Exception as error:
        raise CheckError(
            f"--hf-config {kind}: no tiny model could be built "
            f"({type(error).__name__}: {str(error).splitlines()[0][:160]})."
        ) from error


def _made(text: str) -> tuple[Any, dict]:
    """FILE.py:factory → (module, options)."""
    from torch import nn

    from headwise.interp.check import CheckError
    from headwise.interp.subject import Subject

    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier():
        raise CheckError(f"{text!r} names no factory: write FILE.py:function, such as model.py:make.")
    file = Path(path)
    if not file.is_file():
        raise CheckError(f"there is no file {path}.")
    spec = importlib.util.spec_from_file_location(file.stem, file.resolve())
    if spec is None:
        raise CheckError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))
    sys.modules[file.stem] = module  # dataclasses and pickles of the file look themselves up here
    try:
        spec.loader.exec_module(module)
    except CheckError:
        raise
    except SyntaxError as error:
        raise CheckError(f"{path}, line {error.lineno}: syntax error: {error.msg}.") from error
    except (Exception, SystemExit) as error:
        raise CheckError(f"{path} could not be imported: {type(error).__name__}: {error}.") from error
    factory = getattr(module, name, None)
    if factory is None:
        offers = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == file.stem]
        raise CheckError(f"{path} has no {name}; it has {', '.join(offers) or 'no functions'}.")
    if isinstance(factory, nn.Module | Subject):
        made = factory
    elif not callable(factory):
        raise CheckError(f"{text} is {type(factory).__name__}, not a function that returns a module.")
    else:
        try:
            made = factory()
        except CheckError:
            raise
        except TypeError as error:
            raise CheckError(f"{text} raised TypeError: {error}. A factory is called without arguments.") from error
        except (Exception, SystemExit) as error:
            raise CheckError(f"{text} raised {type(error).__name__}: {error}.") from error
    model, options = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(model, nn.Module | Subject) or not isinstance(options, dict):
        raise CheckError(
            f"{text} returned {type(made).__name__}; it must return an nn.Module, or (module, options dict)."
        )
    return model, options


@contextmanager
def _limit(budget: float):
    """Ends a run that hangs: the budget stops the check between runs, an alarm stops one that does not return."""
    from headwise.interp.check import CheckError

    if not hasattr(signal, "SIGALRM"):  # Windows: between runs only
        yield
        return
    allowed = 1.5 * budget + 60

    def ring(number, frame):
        raise CheckError(f"the model did not return within {allowed:.0f} s: give a smaller input, or raise --budget.")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, allowed)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
