"""The training routines as a head remembers them: near, far, and which action."""

import numpy as np
import pytest
from made_up import routine, routines

from cofinal.models.neighbourhood import FAR_SHARE, Neighbourhood


@pytest.mark.parametrize("num_training", [60, 300])
def test_few_routines_of_the_same_kind_are_far_and_all_of_another_kind_are(num_training: int) -> None:
    def distances(neighbours: Neighbourhood, moved: float, seeds: range) -> np.ndarray:
        return np.array([neighbours.distance(neighbours.place(routine(8, seed).numpy() + moved)) for seed in seeds])

    shares = []
    for start in range(0, 10_000, 1000):
        neighbours = Neighbourhood.fit([routine(8, start + i).numpy() for i in range(num_training)], None)
        shares.append((distances(neighbours, 0, range(start + 500, start + 600)) > neighbours.far).mean())
        assert distances(neighbours, 5, range(3)).min() > 2 * neighbours.far
    assert FAR_SHARE / 2 < np.mean(shares) < 1.5 * FAR_SHARE


def test_a_training_routine_is_its_own_nearest() -> None:
    features, _ = routines(20)
    neighbours = Neighbourhood.fit(features, None)
    for row, x in enumerate(features):
        similarities = neighbours.similarities(neighbours.place(x))
        assert similarities.argmax() == row
        assert similarities[row] > 0.999


def test_columns_that_do_not_vary_and_two_routines_are_no_problem() -> None:
    neighbours = Neighbourhood.fit([np.ones((3, 4), np.float32), np.ones((5, 4), np.float32)], None)
    assert neighbours.distance(neighbours.place(np.ones((2, 4)))) == 0
    assert neighbours.far == 0


def test_probabilities_tell_actions_apart_as_well_as_they_say() -> None:
    rng = np.random.default_rng(0)

    def perform(action: int) -> np.ndarray:
        clips = rng.normal(size=(6, 12))
        clips[:, action] += 1.2
        return clips.astype(np.float32)

    actions = np.arange(90) % 3
    neighbours = Neighbourhood.fit([perform(action) for action in actions], actions)
    asked = np.arange(300) % 3
    probabilities = np.stack([neighbours.action_probabilities(neighbours.place(perform(action))) for action in asked])
    np.testing.assert_allclose(probabilities.sum(1), 1)
    is_right = probabilities.argmax(1) == asked
    assert is_right.mean() > 0.7
    assert abs(is_right.mean() - probabilities.max(1).mean()) < 0.1
