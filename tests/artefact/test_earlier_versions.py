"""Artefacts that earlier versions wrote: they are read, answer the same numbers, and would be written again alike.

``written_by_0_1_0.safetensors`` was made by version 0.1.0, before its modules were sorted into folders, by::

    labels = torch.arange(40) % 3
    inputs = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(0)) + labels.view(-1, 1, 1, 1)
    chosen = settings()
    chosen = replace(chosen, training=replace(chosen.training, epochs=4), search=replace(chosen.search, max_steps=4))
    spec = NetworkSpec("mlp", (1, 3, 3), 3, {"width": 8}, mean=(0.5,), std=(0.25,))
    ensemble = StructuredEnsemble(spec, members=2, keep=0.5, settings=chosen)
    ensemble.fit(TensorDataset(inputs, labels), classes=("cat", "dog", "œil")).save("written_by_0_1_0.safetensors")
"""

from __future__ import annotations

from pathlib import Path

import torch

from structured_ensembles import Ensemble, NetworkSpec
from structured_ensembles.artefact import file as artefact

WRITTEN = Path(__file__).with_name("written_by_0_1_0.safetensors")


def test_it_answers_what_it_answered_then() -> None:
    ensemble = Ensemble.load(WRITTEN)
    found = ensemble.predict(torch.linspace(-1, 3, 36).view(4, 1, 3, 3)).probabilities
    expected = [
        [0.001620246795937419, 0.6593673825263977, 0.33901238441467285],
        [0.02691888064146042, 0.6357480883598328, 0.3373330235481262],
        [0.16823190450668335, 0.600395679473877, 0.23137244582176208],
        [0.16823190450668335, 0.6595622897148132, 0.17220577597618103],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_its_record_says_what_it_said_then() -> None:
    record = Ensemble.load(WRITTEN).record
    assert (record.method, record.members, record.classes) == ("structured", 2, ("cat", "dog", "œil"))
    assert record.network == NetworkSpec("mlp", (1, 3, 3), 3, {"width": 8}, mean=(0.5,), std=(0.25,))
    kept = [{name: index.tolist() for name, index in member.items()} for member in record.channels]
    assert kept == [
        {"network.1": [0, 2, 5, 6], "network.3": [0, 2, 4, 7]},
        {"network.1": [1, 3, 5, 7], "network.3": [0, 4, 5, 6]},
    ]
    assert record.summary["temperature"] == 1.391179


def test_it_would_be_written_again_to_the_byte(tmp_path: Path) -> None:
    record, tensors = artefact.read(WRITTEN)
    artefact.write(tmp_path / "again", tensors, record)
    assert (tmp_path / "again").read_bytes() == WRITTEN.read_bytes()
