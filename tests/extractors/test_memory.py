"""How much memory decord may take follows from what is free, and never exceeds what a reading process has."""

import pytest

from cofinal.extractors import memory
from cofinal.extractors.memory import free_bytes, most_decoder_bytes, process_limit_bytes, suitable_decoder_bytes
from cofinal.extractors.reader import Reader


def test_readers_share_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for free_gib, num_readers, expected_mib in ((64, 1, 1024), (64, 16, 1024), (64, 32, 512), (2, 1, 512), (2, 4, 128)):
        monkeypatch.setattr(memory, "free_bytes", lambda free=free_gib * 2**30: free)
        assert suitable_decoder_bytes(num_readers) == min(expected_mib * 2**20, most_decoder_bytes())
        assert Reader().decoder_bytes == suitable_decoder_bytes()


def test_the_memory_of_this_machine() -> None:
    assert 2**27 < free_bytes() < 2**50
    assert 2 * most_decoder_bytes() == process_limit_bytes() < 2**50


@pytest.mark.parametrize("too_much", [-1, 2**50])
def test_too_much_memory_is_refused(too_much: int) -> None:
    with pytest.raises(ValueError, match=r"decoder-memory must be from 0 to \d+ MiB, half of what a process"):
        Reader(decoder_bytes=too_much)
