from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from structured_ensembles.data.sources import load
from structured_ensembles.errors import ArtefactError, NetworkError, SettingsError
from structured_ensembles.evaluation.cost import untrained
from structured_ensembles.experiments import run
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.plans import Plan

COST = {"parameters": 1, "buffers": 0, "bytes_on_disk": 1, "flops": 1, "seconds": None}
METRICS = dict.fromkeys(("accuracy", "nll", "brier", "ece", "entropy_right"), 0.5) | {"entropy_wrong": None}
ENTRY = {"name": "it", "file": "it.safetensors", "metrics": {**METRICS, "examples": 3}, "cost": COST}


def test_the_table_starts_with_what_the_others_are_measured_by():
    alone = {"whole_network": COST, "methods": {"structured": ENTRY}}
    compared = {
        "whole_network": COST,
        "methods": {"deep": ENTRY, "structured": ENTRY, "single": {**ENTRY, "name": "one"}},
    }

    assert [row.metrics is None for row in run.rows(alone)] == [True, False]
    assert [row.name for row in run.rows(compared)] == ["one", "it", "it"]


def test_images_that_are_too_small_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(run, "build", lambda spec: nn.Sequential(nn.Conv2d(spec.input_shape[0], 4, 9), nn.Flatten()))
    with pytest.raises(NetworkError, match=r"small_cnn fails on images of \(1, 8, 8\) .* enlarge them with"):
        run.network(Plan("digits"), load("digits"))


def test_a_plan_names_known_methods_only():
    with pytest.raises(SettingsError, match=r"'structured'.*Known: .*deep, .*single"):
        Plan(against=("structured",))


def test_the_whole_network_is_sized_without_touching_random_numbers():
    state = torch.get_rng_state()
    untrained(NetworkSpec("small_cnn", (1, 8, 8), 10), [str(k) for k in range(10)]).size()

    assert torch.equal(torch.get_rng_state(), state)


def test_unfinished_damaged_and_newer_results(tmp_path):
    assert run.finished(tmp_path) is None
    for text, message in (("[]", "damaged"), ('{"schema": 1}', "damaged"), ('{"schema": 2}', "has schema 2")):
        (tmp_path / run.METRICS).write_text(text)
        with pytest.raises(ArtefactError, match=message):
            run.finished(tmp_path)
    sound = {"schema": 1, "whole_network": COST, "methods": {"structured": ENTRY}}
    (tmp_path / run.METRICS).write_text(json.dumps(sound))
    assert run.finished(tmp_path) is None
    (tmp_path / "it.safetensors").touch()
    assert run.finished(tmp_path) == sound


def test_logs_outlive_the_state(tmp_path):
    log = tmp_path / "state/deep/member-1/log"
    log.mkdir(parents=True)
    (log / "metrics.csv").write_text("epoch")
    (log.parent / "training.ckpt").touch()
    run.clear(tmp_path)

    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["log/deep/member-1/metrics.csv"]
    run.clear(tmp_path)
