"""The encoder and decoder of GDLT and the paper's head: what sees what, and what is cropped."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import as_if_trained, routine
from torch import Tensor, nn

from cofinal.models.transformer import GradeTransformer, TransformerConfig, crop_and_pad, triplet_loss


def build(**sizes) -> GradeTransformer:
    torch.manual_seed(0)
    targets = {"targets": ("A", "B"), "ranges": ((0, 1), (0, 1))}
    config = TransformerConfig(feature_dim=12, **targets, num_actions=3, width=8, dropout=0.0, **sizes)
    network = GradeTransformer(config)
    as_if_trained(network)
    return network


@pytest.fixture(scope="module")
def network() -> GradeTransformer:
    return build().eval()


def padded(*clips: Tensor, value: float = 1e4) -> tuple[Tensor, Tensor]:
    """A batch whose padding holds huge values, so that a leak of padding shows."""
    lengths = torch.tensor([len(x) for x in clips])
    batch = nn.utils.rnn.pad_sequence(list(clips), batch_first=True, padding_value=value)
    return batch, torch.arange(batch.shape[1]) < lengths[:, None]


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4), own=st.integers(1, 30))
def test_a_routine_alone_is_parsed_as_in_a_padded_batch(
    network: GradeTransformer, lengths: list[int], own: int
) -> None:
    clips = [routine(length, i) for i, length in enumerate([own, *lengths])]
    actions = torch.arange(len(clips)) % 3
    together, attention = network(*padded(*clips), actions)
    alone, attention_alone = network(*padded(clips[0]), actions[:1])
    torch.testing.assert_close(together[0], alone[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(attention[0, ..., :own], attention_alone[0], atol=1e-5, rtol=1e-4)
    assert (attention[0, ..., own:] == 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(len(clips), 2, 4))


def test_padding_has_no_part_in_batch_statistics() -> None:
    """In training: neither the batch's own statistics nor the running ones that are kept for later."""
    little, much = build().train(), build().train()
    clips = [routine(3, 0), routine(7, 1)]
    first, _ = little(*padded(*clips), None)
    batch, is_clip = padded(*clips)
    more = nn.functional.pad(batch, (0, 0, 0, 20), value=-1e4), nn.functional.pad(is_clip, (0, 20))
    second, _ = much(*more, None)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
    for one, other in zip(little.buffers(), much.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    seen = torch.cat(clips) @ little.project[0].weight.T + little.project[0].bias
    torch.testing.assert_close(little.project[1].running_mean, 0.1 * seen.mean(0), atol=1e-4, rtol=1e-4)


def test_attention_is_to_the_clips_and_moves_with_them(network: GradeTransformer) -> None:
    clips = routine(10, 0)
    order = torch.randperm(10)
    grades, attention = network(clips[None], torch.ones(1, 10, dtype=torch.bool), None)
    moved_grades, moved = network(clips[None, order], torch.ones(1, 10, dtype=torch.bool), None)
    assert attention.shape == (1, 2, 4, 10)
    assert attention.std(-1).min() > 1e-3
    torch.testing.assert_close(moved, attention[..., order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved_grades, grades, atol=1e-5, rtol=1e-4)  # as in the public code, without positions


def test_prototypes_of_different_targets_do_not_attend_to_each_other(network: GradeTransformer) -> None:
    clips, is_clip = routine(6, 0)[None], torch.ones(1, 6, dtype=torch.bool)
    changed = copy.deepcopy(network)
    with torch.no_grad():
        changed.prototypes[1, 2] += 1
    before, after = network(clips, is_clip, None)[0][0], changed(clips, is_clip, None)[0][0]
    torch.testing.assert_close(before[0], after[0])
    assert ((before[1] - after[1]).abs().amax(-1) > 1e-4).all()  # the same target's other grades hear of it


def test_the_action_matters(network: GradeTransformer) -> None:
    clips, is_clip = routine(6, 0)[None], torch.ones(1, 6, dtype=torch.bool)
    first, second = (network(clips, is_clip, torch.tensor([action]))[0] for action in (0, 2))
    assert ((first - second).abs().amax(-1) > 1e-4).all()


@given(st.integers(1, 12), st.integers(1, 12))
def test_every_window_can_be_cropped_also_the_last(num_clips: int, window: int) -> None:
    clips, rng, starts = torch.arange(float(num_clips))[:, None], np.random.default_rng(0), set()
    for _ in range(150):
        cropped, is_clip = crop_and_pad([clips], np.array([0]), window, rng)
        assert is_clip.all()
        assert cropped.shape == (1, min(window, num_clips), 1)
        assert (cropped[0, :, 0].diff() == 1).all()
        starts.add(int(cropped[0, 0, 0]))
    assert starts == set(range(max(num_clips - window, 0) + 1))


def test_windows_are_padded_to_the_longest() -> None:
    features = [torch.ones(2, 3), torch.ones(9, 3), torch.ones(4, 3)]
    cropped, is_clip = crop_and_pad(features, np.array([2, 0]), 5, np.random.default_rng(0))
    assert cropped.shape == (2, 4, 3)
    assert is_clip.sum(1).tolist() == [4, 2]
    assert (cropped[..., 0] == is_clip).all()


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_the_triplet_loss_is_that_of_a_plain_search(batch: int, targets: int, grades: int, seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(batch, targets, grades, 5))
    unit = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
    losses = []
    for m in range(targets):
        for b in range(batch):
            for g in range(grades):
                distance = 1 - unit[:, m] @ unit[b, m, g]  # (B, G)
                same = distance[:, g].max()
                other = np.delete(distance, g, axis=1).min() if grades > 1 else 3.0
                losses.append(max(same - other + 1.5, 0))
    found = triplet_loss(torch.from_numpy(embeddings), margin=1.5).item()
    assert found == pytest.approx(np.mean(losses), abs=1e-9)
