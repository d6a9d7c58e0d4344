"""What all tests share: real weights, and a fixed seed for those that draw at random."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for weights.py beside this file


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    import weights

    return weights.smollm2_folder()


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    import weights

    return weights.minilm_folder()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
