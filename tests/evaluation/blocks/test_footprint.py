from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from structured_ensembles.artefact.file import Record
from structured_ensembles.channels.extraction import extract
from structured_ensembles.errors import ArtefactError, SettingsError
from structured_ensembles.evaluation.blocks import footprint as module
from structured_ensembles.evaluation.blocks.footprint import CostInUse, Resident, cost_in_use, footprint, peak_resident
from structured_ensembles.networks import NetworkSpec, build, sizes
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction import _resident
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.types import Cut, Group, Side

SPEC = NetworkSpec("mlp", (1, 8, 8), 3, {"width": 12})
GROUP = Group("1", 12, (Cut("1", Side.OUT), Cut("3", Side.IN)), private=True)
FIELDS = [
    "parameters",
    "buffers",
    "bytes",
    "flops",
    "peak_bytes",
    "bytes_before",
    "milliseconds_batch_1",
    "milliseconds_batch_128",
]
SIZES = FIELDS[:4]


def small(spec: NetworkSpec | None = SPEC) -> Ensemble:
    """Two members, of 4 and of 6 of the network's 12 first channels."""
    channels = ({"1": torch.arange(4)}, {"1": torch.arange(6, 12)})
    whole = build(SPEC)
    members = [extract(whole, (GROUP,), kept) for kept in channels]
    record = Record("structured", 2, ("a", "b", "c"), (1, 8, 8), Combine.PROBABILITIES, spec, (GROUP,), channels)
    return Ensemble(members, record)


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    small().save(tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_what_it_stands_beside_is_measured_where_it_is(monkeypatch):
    measured = []
    monkeypatch.setattr(module, "footprint", lambda one, _: measured.append(next(one.parameters()).device.type))
    cost_in_use(small().to("meta"))
    assert measured == ["meta"] * 3


@pytest.fixture
def no_child(monkeypatch):
    """No process is started: what it would have said stands here."""
    monkeypatch.setattr(module, "peak_resident", lambda *_: Resident(10, 30))


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def test_a_file_costs_what_it_holds(artefact, no_child):
    found = footprint(artefact)

    assert list(asdict(found)) == FIELDS
    widths = [layer.out_features for layer in build(SPEC).modules() if isinstance(layer, nn.Linear)]
    assert widths == [12, 12, 3]
    assert found.parameters == sum(linear(64, kept) + linear(kept, 12) + linear(12, 3) for kept in (4, 6))
    assert found.flops == sum(2 * (64 * kept + kept * 12 + 12 * 3) for kept in (4, 6))
    assert found.buffers == sum(sizes.buffers(member) for member in Ensemble.load(artefact).members)
    assert found.bytes == artefact.stat().st_size
    assert (found.peak_bytes, found.bytes_before) == (30, 10)
    assert found.milliseconds_batch_1 > 0
    assert found.milliseconds_batch_128 > 0


def test_an_ensemble_costs_what_its_file_does_and_is_left_as_it_was(artefact, no_child):
    ensemble = Ensemble.load(artefact).train()
    state = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    found = footprint(ensemble)

    assert [getattr(found, name) for name in SIZES] == [getattr(footprint(str(artefact)), name) for name in SIZES]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in ensemble.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in ensemble.state_dict().items())


def test_beside_a_whole_network_and_as_many_of_them_as_there_are_members(artefact, no_child):
    found = cost_in_use(artefact)

    whole = linear(64, 12) + linear(12, 12) + linear(12, 3)
    assert [asdict(found)[name]["parameters"] for name in ("dense", "deep")] == [whole, 2 * whole]
    assert found.deep.flops == 2 * found.dense.flops == 2 * sizes.flops(build(SPEC), torch.zeros(1, 1, 8, 8))
    assert found.deep.buffers == 2 * found.dense.buffers
    assert found.dense.bytes > 4 * whole
    assert found.ensemble.parameters < found.deep.parameters
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["ensemble"]["bytes"] == artefact.stat().st_size


def test_for_one_member_the_deep_ensemble_is_the_dense_network(no_child):
    record = Record("single", 1, ("a", "b", "c"), (1, 8, 8), Combine.PROBABILITIES, SPEC)
    found = cost_in_use(Ensemble([build(SPEC)], record))

    assert found.deep == found.dense
    assert [getattr(found.dense, name) for name in SIZES] == [getattr(found.ensemble, name) for name in SIZES]


def test_an_architecture_that_the_file_does_not_name_has_sizes_but_no_rivals_and_no_peak():
    said: list[str] = []
    found = cost_in_use(small(None), said.append)

    assert found == CostInUse(found.ensemble, None, None)
    assert found.ensemble.peak_bytes is found.ensemble.bytes_before is None
    assert found.ensemble.parameters == sizes.parameters(small().members)
    assert len(said) == 1
    assert "does not name its architecture" in said[0]


def test_files_that_cannot_be_loaded_are_refused(tmp_path):
    with pytest.raises(ArtefactError, match="no such file"):
        cost_in_use(tmp_path / "none")
    small(None).save(tmp_path / "unnamed")
    with pytest.raises(ArtefactError, match="pass it"):
        footprint(tmp_path / "unnamed")
    with pytest.raises(SettingsError, match="call fit"):
        footprint(Ensemble())


# --- memory ---------------------------------------------------------------------------------------------------------


def test_a_process_reports_its_own_peak(artefact, monkeypatch):
    """Also where the current folder holds files that are called as libraries are."""
    if sys.version_info >= (3, 11):
        (artefact.parent / "torch.py").write_text("raise SystemExit('the wrong torch')")
    monkeypatch.chdir(artefact.parent)
    said: list[str] = []
    found = peak_resident(Path(artefact.name), said.append)

    assert said == []
    assert 50e6 < found.before < found.peak < found.before + 1e9


def test_what_memory_is_measured_of(artefact, capsys):
    """The same in this process: three batches of 128, seen by the members in evaluation mode."""
    seen: list[tuple[tuple[int, ...], bool]] = []
    with pytest.MonkeyPatch.context() as patch:
        forward = Ensemble.forward
        patch.setattr(
            Ensemble, "forward", lambda self, x: (seen.append((tuple(x.shape), self.training)), forward(self, x))[1]
        )
        _resident.main(str(artefact))

    assert seen == [((128, 1, 8, 8), False)] * 3
    before, peak = json.loads(capsys.readouterr().out)
    assert 0 < before <= peak


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="ru_maxrss is all that there is")
def test_a_peak_stays_and_is_not_inherited():
    code = "from structured_ensembles.prediction._resident import peak; print(peak()); b'x' * 2**26; print(peak())"
    before, after = map(int, subprocess.check_output([sys.executable, "-c", code]).split())  # noqa: S603 (our own code)
    assert before < 50e6 < _resident.peak()  # this process holds torch
    assert after - before == pytest.approx(2**26, rel=0.1)


def test_without_proc_the_peak_comes_from_usage():
    assert pytest.importorskip("resource")
    assert _resident._from_usage() >= 50e6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "exists", lambda _: False)
        assert _resident.peak() == _resident._from_usage()
        patch.setitem(sys.modules, "resource", None)
        assert _resident.peak() is None


@pytest.mark.parametrize(
    ("executable", "reason"),
    [
        ("missing", "No such file"),
        ("#!/bin/sh\necho what >&2\necho why >&2\nexit 3", "(why)"),
        ("#!/bin/sh\n", "Expecting value"),
    ],
)
def test_a_process_that_fails_costs_a_notice_only(artefact, monkeypatch, executable, reason):
    program = artefact.parent / "python"
    if executable != "missing":
        program.write_text(executable)
        program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    said: list[str] = []

    assert footprint(artefact, said.append).peak_bytes is None
    assert len(said) == 1
    assert "small.safetensors was not measured" in said[0]
    assert reason in said[0]


def test_a_process_that_hangs_is_ended(artefact, monkeypatch):
    program = artefact.parent / "python"
    program.write_text("#!/bin/sh\nexec sleep 60")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with pytest.warns(UserWarning, match="timed out"):
        assert peak_resident(artefact) is None


def test_no_process_where_the_system_does_not_tell(artefact, monkeypatch):
    monkeypatch.setattr(_resident, "peak", lambda: None)
    monkeypatch.setattr(subprocess, "run", None)
    said: list[str] = []
    assert peak_resident(artefact, said.append) is None
    assert said == []


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "passes"),
    [([9, 0.2, 0.1, 0.3], 200, 4), ([9, 4, 2, 3], 3000, 4), ([9] + [0.001] * 50, 1, 51)],
)
def test_the_median_of_several_times_after_a_warm_up(monkeypatch, seconds, milliseconds, passes):
    given = iter(seconds)
    taken: list[int] = []
    monkeypatch.setattr(module, "_seconds", lambda _, images: (taken.append(len(images)), next(given))[1])

    assert module._milliseconds(small(), 5) == pytest.approx(milliseconds)
    assert taken == [5] * passes


def test_a_batch_is_predicted_as_one(monkeypatch):
    shapes: list[int] = []
    ensemble = small()
    for member in ensemble.members:
        member.register_forward_hook(lambda _module, inputs, _output: shapes.append(len(inputs[0])))
    assert module._seconds(ensemble, torch.zeros(300, 1, 8, 8)) > 0
    assert shapes == [300, 300]
