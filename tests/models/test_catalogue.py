"""What the catalogue says of its models, against the models themselves."""

from itertools import combinations

import pytest

from headwise import load
from headwise.interp.errors import InputError
from headwise.interp.subject import same_tokens
from headwise.models import available
from headwise.models.catalogue import CATALOGUE, of_the_same

READS = {"vision": "picture", "audio": "recording", "encoder-decoder": "word"}  # by family; else what the subject says


@pytest.mark.parametrize("name", available())
def test_a_model_reads_what_its_entry_says(name):
    subject = load(name)
    assert CATALOGUE[name].reads == READS.get(subject.family, subject.reads)


def test_models_of_the_same_tokens_read_the_same_tokens_and_no_others_do():
    apart = "tiny-xlnet"  # reads the speeches too, but its heads stand in two streams: none is another model's
    texts = [load(name) for name in available() if CATALOGUE[name].reads == "text" and name != apart]
    for one, other in combinations(texts, 2):
        inputs = one.encode("The people of the United States.")
        try:
            same_tokens(one, other, inputs)
            same = True
        except InputError:
            same = False
        assert same == (other.name in of_the_same(one.name, "tokens")), (one.name, other.name)


def test_who_reads_the_same():
    assert of_the_same("tiny-encoder", "tokens") == ("tiny-classifier",)
    assert of_the_same("tiny-vit", "reads") == ("dinov2-small",) and of_the_same("tiny-vit", "tokens") == ()
    assert of_the_same("somebody/elses", "reads") == ()
