"""Strides: an output stands at the last input it waits for; hand-counted convolutions."""

import pytest
import torch

from headwise.interp.check.strides import at_real, unit, waits


def frames(kernel, stride):
    """Outputs of a convolution without padding, by its length formula."""
    return lambda n: max(0, (n - kernel) // stride + 1)


@pytest.mark.parametrize(("kernel", "stride", "length"), [(2, 2, 40), (10, 5, 97), (4, 1, 20), (3, 3, 31)])
def test_an_output_waits_for_the_end_of_its_kernel(kernel, stride, length):
    counted = frames(kernel, stride)
    given = counted(length)
    assert waits(given, length, counted).tolist() == [kernel - 1 + stride * j for j in range(given)]


def test_where_shorter_inputs_cannot_be_run_strides_are_even():
    assert waits(5, 20, lambda n: None).tolist() == [3, 7, 11, 15, 19]


def test_a_unit_is_told_only_where_every_output_is_made_of_as_many_inputs():
    assert unit(torch.arange(7), 7) == 1 and unit(torch.tensor([1, 3, 5]), 6) == 2
    assert unit(torch.tensor([2, 3, 5]), 6) is None and unit(torch.tensor([3, 5, 7]), 8) is None


def test_outputs_at_real_positions_are_as_many_as_the_sample_has_alone():
    real = torch.tensor([[1] * 9 + [0] * 3, [0] * 5 + [1] * 7], dtype=torch.bool)
    wanted = [[1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]]  # nine inputs make four outputs of two, seven make three
    assert at_real(real, 6, frames(2, 2)).int().tolist() == wanted
