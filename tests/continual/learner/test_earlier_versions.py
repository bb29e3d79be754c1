"""Streams that earlier versions wrote: they are read, answer the same numbers, and would be written again alike.

``written_by_0_1_0.safetensors`` was made by version 0.1.0, before its modules were sorted into folders, by::

    chosen = ContinualSettings()
    training = replace(chosen.training, epochs=8, batch_size=8)
    chosen = replace(chosen, training=training, search=replace(chosen.search, max_steps=2))
    learner = ContinualLearner(NetworkSpec("mlp", (1, 3, 3), 3, {"width": 12}), settings=chosen, seed=0)
    for task in range(2):
        labels = torch.arange(40) % (2 + task)
        inputs = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(task)) + labels.view(-1, 1, 1, 1)
        learner.learn(TensorDataset(inputs, labels), name=f"tâche {task}")
    learner.save("written_by_0_1_0.safetensors")
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from structured_ensembles.continual import ContinualLearner

WRITTEN = Path(__file__).with_name("written_by_0_1_0.safetensors")
INPUTS = torch.linspace(-1, 3, 36).view(4, 1, 3, 3)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (
            0,
            [
                [0.8594177961349487, 0.14058218896389008],
                [0.8958600759506226, 0.10413987189531326],
                [0.06666510552167892, 0.9333349466323853],
                [0.0002687366504687816, 0.9997312426567078],
            ],
        ),
        (
            1,
            [
                [0.6740496158599854, 0.28718021512031555, 0.03877018019556999],
                [0.7755774259567261, 0.1702704131603241, 0.05415213480591774],
                [0.013547427020967007, 0.5754131078720093, 0.41103941202163696],
                [1.70513812918216e-05, 0.34917110204696655, 0.6508118510246277],
            ],
        ),
    ],
)
def test_it_answers_what_it_answered_then(task: int, expected: list[list[float]]) -> None:
    learner = ContinualLearner.load(WRITTEN)
    torch.testing.assert_close(learner.predict(INPUTS, task=task).probabilities, torch.tensor(expected))


def test_it_knows_its_tasks() -> None:
    learner = ContinualLearner.load(WRITTEN)
    learner.check_forgetting()
    assert [(task.name, len(task.classes)) for task in learner.tasks] == [("tâche 0", 2), ("tâche 1", 3)]
    assert learner.predict(INPUTS).tasks.tolist() == [0, 0, 0, 1]
    assert (learner.seed, learner.settings.training.epochs) == (0, 8)


def test_it_would_be_written_again_to_the_byte(tmp_path: Path) -> None:
    ContinualLearner.load(WRITTEN).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == WRITTEN.read_bytes()
