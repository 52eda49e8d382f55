"""Each loss is smallest where it should be and ignores what is not known."""

import torch

from cofinal.models.cofinal import Output
from cofinal.models.coupling import couple, decouple
from cofinal.models.losses import coarse_loss, final_loss, fine_loss, losses, prototype_loss

EDGES = torch.tensor([0.0, 10.0, 20.0, 40.0])


def test_coarse_and_fine_losses_are_least_at_their_targets() -> None:
    coarse, fine = decouple(torch.tensor([3.0, 20.0, 39.0]), EDGES, 5, softness=2.0)
    exact_coarse, exact_fine = coarse.clamp(min=1e-30).log(), fine.clamp(min=1e-30).log()
    for seed in range(5):
        noise = torch.Generator().manual_seed(seed)
        other_coarse = exact_coarse + torch.randn(coarse.shape, generator=noise)
        other_fine = exact_fine + torch.randn(fine.shape, generator=noise)
        assert (coarse_loss(exact_coarse, coarse) <= coarse_loss(other_coarse, coarse)).all()
        assert (fine_loss(exact_fine, fine, coarse) <= fine_loss(other_fine, fine, coarse)).all()


def test_fine_loss_asks_only_the_scores_own_grade() -> None:
    coarse, fine = decouple(torch.tensor([15.0]), EDGES, 5)
    logits = torch.zeros(1, 3, 5, requires_grad=True)
    fine_loss(logits, fine, coarse).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1].abs().sum() > 0
    assert logits.grad[0, [0, 2]].abs().sum() == 0


def test_final_loss_counts_in_units_of_the_scale() -> None:
    loss = final_loss(torch.tensor([11.0, 9.0]), torch.tensor([9.0, 11.0]), torch.tensor(4.0))
    torch.testing.assert_close(loss, torch.tensor([0.25, 0.25]))


def test_prototype_loss_vanishes_when_grades_cluster_and_not_when_they_mix() -> None:
    directions = torch.eye(3)
    clustered = directions.expand(4, 2, 3, 3)
    assert prototype_loss(clustered, margin=0.5) == 0
    mixed = torch.stack((directions, directions.roll(1, 0)))[:, None]
    torch.testing.assert_close(prototype_loss(mixed, margin=0.5), torch.tensor(1.5))  # 1 - 0 + margin


def test_unknown_scores_teach_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    grade_logits, subgrade_logits = (
        torch.randn(4, 1, 2, 3, generator=generator),
        torch.randn(4, 1, 2, 3, 5, generator=generator),
    )
    edges, scale = torch.stack((EDGES, EDGES * 2)), torch.tensor([8.0, 16.0])
    output = Output(
        score=couple(grade_logits.softmax(-1), subgrade_logits.softmax(-1), edges),
        grade_logits=grade_logits,
        subgrade_logits=subgrade_logits,
        embeddings=torch.randn(4, 1, 2, 3, 8, generator=generator),
    )
    truth = torch.tensor([[5.0, torch.nan], [torch.nan, torch.nan], [torch.nan, 39.0], [25.0, 80.0]])
    all_rows = losses(output, truth, edges, scale, softness=0.5)
    alone = [
        losses(
            Output(*(part[row : row + 1, :, m : m + 1] for part in output)),
            truth[row : row + 1, m : m + 1],
            edges[m : m + 1],
            scale[m : m + 1],
            softness=0.5,
        )
        for row, m in ((0, 0), (2, 1), (3, 0), (3, 1))
    ]
    for name in ("coarse", "fine", "final"):
        torch.testing.assert_close(all_rows[name], torch.stack([part[name] for part in alone]).mean())
    none_known = losses(output, torch.full((4, 2), torch.nan), edges, scale, softness=0.5)
    assert none_known["final"] == none_known["coarse"] == none_known["fine"] == 0
