"""An ensemble is one panel of all its members' judges, in memory and in a file."""

from pathlib import Path

import pytest
import torch
from made_up import as_if_trained, batch, routine

from cofinal.models.checkpoint import load_head, serialise_head
from cofinal.models.cofinal import CoFInAlConfig
from cofinal.models.ensemble import Ensemble
from cofinal.models.gdlt import GDLTConfig
from cofinal.models.grading import GradingConfig

TWO = {"feature_dim": 12, "targets": ("A", "B"), "ranges": ((0, 10), (5, 30)), "width": 8, "num_components": 6}


@pytest.fixture(params=[CoFInAlConfig(**TWO), GDLTConfig(**TWO)], ids=["cofinal", "gdlt"])
def ensemble(request: pytest.FixtureRequest) -> Ensemble:
    config: GradingConfig = request.param
    torch.manual_seed(0)
    members = [config.build() for _ in range(3)]
    for member in members:
        as_if_trained(member)
    return Ensemble(members).eval()


def test_scores_and_grades_are_the_mean_of_the_members(ensemble: Ensemble) -> None:
    routines = batch(routine(5, 0), routine(9, 1))
    together, each = ensemble(*routines), [member(*routines) for member in ensemble.members]
    torch.testing.assert_close(together.score, torch.stack([output.score for output in each]).mean(0))
    shares = torch.stack([output.grade_logits.softmax(-1) for output in each])
    torch.testing.assert_close(together.grade_logits.softmax(-1), shares.mean(0))
    if together.subgrade_logits is not None:
        joint = torch.stack([output.subgrade_logits.softmax(-1) for output in each]) * shares[..., None]
        found = together.subgrade_logits.softmax(-1) * shares.mean(0)[..., None]
        torch.testing.assert_close(found, joint.mean(0))
    assert torch.equal(ensemble.edges, ensemble.members[0].edges)


def test_it_comes_back_from_its_file(ensemble: Ensemble, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    path.write_bytes(serialise_head(ensemble, {}))
    loaded = load_head(path).network
    assert isinstance(loaded, Ensemble)
    assert len(loaded.members) == 3
    assert loaded.config == ensemble.config
    routines = batch(routine(5, 0))
    torch.testing.assert_close(loaded(*routines).score, ensemble(*routines).score)
