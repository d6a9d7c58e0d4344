"""The shelf: made once, kept by bytes, the least recently used go first."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from headwise.pages._shared import shelf
from headwise.pages._shared.shelf import Server, Shelf

THOUSAND = 250  # numbers in a tensor of a thousand bytes
SLACK = 400  # bytes that Python counts beside a tensor's


def thousands(count: int) -> torch.Tensor:
    return torch.zeros(count * THOUSAND)


def test_many_small_results_are_kept_where_few_large_ones_are():
    small, large = Shelf(100_000), Shelf(100_000)
    for number in range(50):
        small.get(number, lambda: thousands(1))
        large.get(number, lambda: thousands(30))
    assert len(small.kept) == 50 and list(large.kept) == [47, 48, 49]
    assert 50_000 <= small.bytes <= 50 * (1_000 + SLACK) and 90_000 <= large.bytes <= 100_000


def test_what_was_used_last_stays():
    kept = Shelf(3 * (1_000 + SLACK))
    for number in (0, 1, 2):
        kept.get(number, lambda: thousands(1))
    first = kept.get(0, pytest.fail)
    kept.get(3, lambda: thousands(1))
    assert set(kept.kept) == {2, 0, 3} and kept.get(0, pytest.fail) is first


def test_what_is_larger_than_the_room_is_kept_alone_until_the_next_comes():
    kept = Shelf(2_000)
    for number in range(3):
        kept.get(number, lambda: thousands(10))
        assert list(kept.kept) == [number]


def test_some_are_kept_whatever_they_weigh():
    kept = Shelf(0, least=2)
    for number in range(4):
        kept.get(number, lambda: thousands(1))
    assert list(kept.kept) == [2, 3]


def test_a_result_that_grew_is_weighed_again_when_it_is_used(monkeypatch):
    kept, grows = Shelf(10_000), [thousands(1)]
    kept.get("grows", lambda: grows)
    kept.get("other", lambda: thousands(1))
    before = kept.bytes
    grows.append(thousands(5))
    kept.get("grows", pytest.fail)
    assert kept.bytes == before
    monkeypatch.setattr(shelf, "AGAIN", -1.0)
    kept.get("grows", pytest.fail)
    assert before + 5_000 <= kept.bytes <= before + 5_000 + SLACK and len(kept.kept) == 2
    grows.append(thousands(9))
    kept.get("grows", pytest.fail)
    assert list(kept.kept) == ["grows"]


def test_many_who_ask_at_once_get_one_result_and_what_failed_is_made_anew():
    kept, made, start = Shelf(10_000), [], threading.Barrier(8)

    def make():
        made.append(1)
        if len(made) == 1:
            raise RuntimeError("broken off")
        return object()

    def ask(_):
        start.wait()
        try:
            return kept.get("key", make)
        except RuntimeError:
            return None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(made) == 2 and found.count(None) == 1 and len(set(found)) == 2 and not kept.making


def test_the_server_has_a_quarter_of_the_memory_or_what_it_is_told(monkeypatch):
    monkeypatch.delenv("HEADWISE_KEEP", raising=False)
    monkeypatch.setattr(shelf, "memory", lambda: 8_000)
    assert Server().results.room == 2_000
    monkeypatch.setenv("HEADWISE_KEEP", "3e9")
    found = Server()
    assert found.results.room == found.models.room == 3_000_000_000
    assert not found.has("zoo", 1)
    assert found.made("zoo", 1, lambda: "made") == "made" and found.has("zoo", 1)
