"""What something weighs, held against bytes counted by hand."""

import numpy as np
import pytest
import torch

from headwise import capture, load
from headwise.interp.run import weighing
from headwise.interp.run.weighing import memory, weight

TEXT = "Mary gave a book to John."


@pytest.fixture(scope="module")
def subject():
    return load("tiny-decoder")


def bare(thing) -> int:
    """Beside what Python counts for an empty one."""
    return weight(thing) - weight(type(thing)())


def test_a_tensor_weighs_its_storage_once_however_many_look_at_it():
    whole = torch.zeros(10_000)
    parts = [whole[:5_000], whole[5_000:], whole.view(100, 100)]
    assert 40_000 <= weight(parts) < 41_000


def test_an_array_weighs_what_its_base_does():
    whole = np.zeros((100, 100))
    assert 80_000 <= weight(whole[:1]) < 81_000


def test_what_a_function_closes_over_counts_and_its_globals_do_not():
    held = torch.zeros(1_000)
    assert 4_000 <= weight(lambda: held) < 5_000
    assert weight(test_what_a_function_closes_over_counts_and_its_globals_do_not) < 1_000


def test_a_subject_weighs_its_parameters_and_a_capture_does_not_weigh_its_subject(subject):
    held = sum(p.nbytes for p in {p.data_ptr(): p for p in subject.module.parameters()}.values())
    buffers = sum(b.nbytes for b in subject.module.buffers())
    assert weight(subject) == held + buffers
    cap = capture(subject, TEXT)
    assert cap.nbytes <= weight(cap) < 4 * cap.nbytes < weight(subject)


def test_a_capture_weighs_more_once_somebody_looked_at_its_stream(subject):
    cap = capture(subject, TEXT)
    before = weight(cap)
    states = sum(state.nbytes for state in cap.residuals)
    assert weight(cap) >= before + states


@pytest.mark.parametrize(("said", "expected"), [("max\n", None), ("1048576\n", 2**20)])
def test_a_container_may_have_less_than_the_machine(tmp_path, monkeypatch, said, expected):
    file = tmp_path / "memory.max"
    monkeypatch.setattr(weighing, "LIMITS", (tmp_path / "not there", file))
    file.write_text(said)
    machine = memory() if expected is None else expected
    assert memory() == machine and (expected is not None or machine > 2**28)
