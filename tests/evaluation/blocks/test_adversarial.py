from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.nn import functional

from structured_ensembles.artefact.file import Record
from structured_ensembles.data.sources import as_float, load
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.attacks import fgsm, pgd
from structured_ensembles.evaluation.blocks.adversarial import EPSILONS, adversarial
from structured_ensembles.evaluation.metrics import accuracy, nll
from structured_ensembles.implicit.mimo import mimo
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble

SHAPE = (1, 8, 8)
DIGITS = load("digits").train
IMAGES, LABELS = DIGITS.images[:60], DIGITS.labels[:60]


def record(members: int) -> Record:
    return Record("deep", members, tuple("0123456789"), SHAPE, Combine.PROBABILITIES, None)


def trained(width: int, seed: int) -> nn.Module:
    """A small network that learned some digits in a moment."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    pixels, labels = as_float(DIGITS.images[:600]), DIGITS.labels[:600]
    for _ in range(80):
        optimiser.zero_grad()
        functional.cross_entropy(network(pixels), labels).backward()
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return Ensemble([trained(width, seed) for seed, width in enumerate((16, 24, 32))], record(3))


@pytest.fixture(scope="module")
def result(ensemble):
    return adversarial(ensemble, IMAGES, LABELS, 0.5, (0.0, 0.02, 0.2), 0.1, seed=5)


def test_it_is_the_part_of_the_schema(result):
    part = json.loads(json.dumps(asdict(result), allow_nan=False))
    assert list(part) == ["images", "fgsm", "pgd", "transfer"]
    for row in part["fgsm"] + part["pgd"]:
        assert list(row) == ["epsilon", "accuracy", "nll", "predictive_entropy", "rejected_share"]
    assert list(part["transfer"]) == ["epsilon", "crafted_on", "tested_on", "accuracy"]
    assert part["images"] == 60
    assert part["transfer"]["epsilon"] == 0.1
    assert part["transfer"]["crafted_on"] == ["member 1", "member 2", "member 3"]
    assert part["transfer"]["tested_on"] == ["ensemble", "member 1", "member 2", "member 3"]
    assert [len(row) for row in part["transfer"]["accuracy"]] == [4, 4, 4]


def test_the_published_epsilons_are_the_default():
    assert EPSILONS == (0.001, 0.01, 0.02, 0.1, 0.5)
    assert adversarial.__defaults__ == (EPSILONS, 0.02, 0)


def test_rows_are_measured_on_the_attacked_images(ensemble, result):
    pixels = as_float(IMAGES)
    for place, epsilon in enumerate((0.0, 0.02, 0.2)):
        for rows, attacked in (
            (result.fgsm, fgsm(ensemble, pixels, LABELS, epsilon)),
            (result.pgd, pgd(ensemble, pixels, LABELS, epsilon, seed=5)),
        ):
            said = ensemble.predict(attacked)
            assert rows[place].epsilon == epsilon
            assert rows[place].accuracy == accuracy(said.probabilities, LABELS)
            assert rows[place].nll == pytest.approx(nll(said.probabilities, LABELS))
            assert rows[place].predictive_entropy == pytest.approx(said.predictive_entropy.mean().item())
            assert rows[place].rejected_share == pytest.approx((said.predictive_entropy > 0.5).double().mean().item())


def test_larger_changes_deceive_more(result):
    for rows in (result.fgsm, result.pgd):
        clean, little, much = rows
        assert clean.accuracy > 0.95
        assert clean.nll < little.nll < much.nll
        assert much.accuracy < 0.3
    assert result.pgd[2].accuracy <= result.fgsm[2].accuracy


def test_transfer_against_a_slow_loop(ensemble, result):
    for row, crafted_on in zip(result.transfer.accuracy, ensemble.members, strict=True):
        pixels = as_float(IMAGES).clone().requires_grad_()
        functional.cross_entropy(crafted_on(pixels), LABELS).backward()
        attacked = (pixels + 0.1 * pixels.grad.sign()).clamp(0, 1).detach()
        expected = [accuracy(ensemble.predict(attacked).probabilities, LABELS)]
        expected += [(tested(attacked).argmax(1) == LABELS).double().mean().item() for tested in ensemble.members]
        assert row == pytest.approx(expected)


def test_an_attack_hurts_the_member_it_was_crafted_on_most(result):
    for place, (together, *members) in enumerate(result.transfer.accuracy):
        assert members[place] == min(members)
        assert together > members[place]


def test_one_member_has_nobody_to_transfer_to(ensemble):
    alone = Ensemble(ensemble.members[:1], record(1))
    assert adversarial(alone, IMAGES[:5], LABELS[:5], None, (0.02,)).transfer is None


def test_a_shared_network_is_attacked_as_a_whole():
    spec = NetworkSpec("mlp", SHAPE, 10)
    shared = Ensemble([mimo(spec, 2)], record(2))
    found = adversarial(shared, IMAGES[:5], LABELS[:5], None, (0.02,))
    assert found.transfer is None
    assert found.fgsm[0].nll > adversarial(shared, IMAGES[:5], LABELS[:5], None, (0.0,)).fgsm[0].nll


def test_without_a_threshold_nothing_is_said_about_rejection(ensemble):
    found = adversarial(ensemble, IMAGES[:5], LABELS[:5], None, (0.02,))
    assert [row.rejected_share for row in (*found.fgsm, *found.pgd)] == [None, None]
    endless = adversarial(ensemble, IMAGES[:5], LABELS[:5], math.inf, (0.02,))
    assert [row.rejected_share for row in (*endless.fgsm, *endless.pgd)] == [0.0, 0.0]


def test_one_bar_tells_how_far_it_is(ensemble, capsys):
    adversarial(ensemble, IMAGES[:5], LABELS[:5], None, (0.02, 0.1))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("attacking 25 · ")  # 2 epsilons of 1 + 10 gradients, then 3 members


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilons": (0.1, -0.01)}, "epsilon -0.01: .* pass 0 to 1"),
        ({"transfer_epsilon": 2.0}, "epsilon 2.0: .* pass 0 to 1"),
        ({"threshold": math.nan}, "threshold nan: pass an entropy in nats, or None"),
        ({"seed": -3}, "seed -3 is negative"),
    ],
)
def test_impossible_settings_are_refused_before_any_work(ensemble, monkeypatch, arguments, message):
    monkeypatch.setattr(Ensemble, "forward", lambda *_: pytest.fail("it began"))
    with pytest.raises(SettingsError, match=message):
        adversarial(ensemble, IMAGES, LABELS, **{"threshold": None, **arguments})


def test_data_that_do_not_fit_are_refused_before_any_work(ensemble, monkeypatch):
    monkeypatch.setattr(Ensemble, "forward", lambda *_: pytest.fail("it began"))
    with pytest.raises(DataError, match=r"images of shape \(2, 3, 8, 8\): pass \(N, 1, 8, 8\)"):
        adversarial(ensemble, torch.zeros(2, 3, 8, 8), LABELS[:2], None)
    with pytest.raises(DataError, match="60 images and labels of shape"):
        adversarial(ensemble, IMAGES, LABELS[:2], None)
