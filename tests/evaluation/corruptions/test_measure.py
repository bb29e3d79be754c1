from __future__ import annotations

import json
from dataclasses import asdict
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from structured_ensembles.artefact.record import Record
from structured_ensembles.data.sources import load
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.corruptions.kinds import KINDS, STANDARD, corrupt
from structured_ensembles.evaluation.corruptions.measure import corruptions, corruptions_of_files
from structured_ensembles.evaluation.metrics import accuracy, ece, nll
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble

SCORES = ["accuracy", "nll", "ece", "rejected_share", "accuracy_of_kept"]


def build(shape: tuple[int, int, int], members: int = 2, classes: int = 10) -> Ensemble:
    """Two linear networks with random weights."""
    networks = []
    for seed in range(members):
        linear = nn.Linear(int(np.prod(shape)), classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            linear.weight.normal_(0, 1, generator=generator)
            linear.bias.zero_()
        networks.append(nn.Sequential(nn.Flatten(), linear))
    names = tuple(str(label) for label in range(classes))
    return Ensemble(networks, Record("deep", members, names, shape, Combine.PROBABILITIES, None)).eval()


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    test = load("digits").test
    return test.images[:60], test.labels[:60]


def test_numbers_are_means_of_what_each_set_gives(digits):
    ensemble, (images, labels) = build((1, 8, 8)), digits
    kinds, severities, threshold = ("fog", "saturate", "contrast"), (2, 5), 1.5
    result = corruptions(ensemble, images, labels, threshold, kinds, severities, bins=7, seed=3)
    rows = {}
    for kind in kinds:
        for severity in severities:
            changed = torch.from_numpy(corrupt((images * 255).round().byte().numpy(), kind, severity, 3))
            said = ensemble.predict(changed.float() / 255)
            kept = said.predictive_entropy <= threshold
            rows[kind, severity] = {
                "accuracy": accuracy(said.probabilities, labels),
                "nll": nll(said.probabilities, labels),
                "ece": ece(said.probabilities, labels, 7),
                "rejected_share": float((~kept).double().mean()),
                "accuracy_of_kept": float((said.classes == labels)[kept].double().mean()),
            }
    assert 0 < rows["fog", 2]["rejected_share"] < 1
    for one in result.by_kind:
        for name in SCORES:
            assert getattr(one, name) == pytest.approx(fmean(rows[one.kind, level][name] for level in severities))
    for one in result.by_severity:  # saturate is none of the standard kinds
        for name in SCORES:
            standard = [rows[kind, one.severity][name] for kind in ("fog", "contrast")]
            assert getattr(one, name) == pytest.approx(fmean(standard))


def test_the_result_is_the_schemas_part(digits):
    result = asdict(corruptions(build((1, 8, 8)), digits[0][:5], digits[1][:5], 1.0))
    read = json.loads(json.dumps(result))
    assert read["name"] == "CIFAR-10-C-like"
    assert [row["severity"] for row in read["by_severity"]] == [1, 2, 3, 4, 5]
    assert [row["kind"] for row in read["by_kind"]] == list(KINDS)
    assert set(read["by_severity"][0]) == {"severity", *SCORES}
    assert set(read["by_kind"][0]) == {"kind", *SCORES}


def test_bytes_and_floats_are_the_same_images(digits):
    images = (digits[0] * 255).round().byte()
    asked = [corruptions(build((1, 8, 8)), one, digits[1], None, ("snow",), (1,)) for one in (images, images / 255)]
    assert asked[0] == asked[1]


def test_without_a_threshold_nothing_is_said_about_rejection(digits):
    (one,) = corruptions(build((1, 8, 8)), *digits, None, ("fog",), (1,)).by_severity
    assert one.rejected_share is None
    assert one.accuracy_of_kept is None


def test_if_all_are_rejected_there_is_no_accuracy_of_the_rest(digits):
    (one,) = corruptions(build((1, 8, 8)), *digits, -1.0, ("fog",), (1,)).by_kind
    assert one.rejected_share == 1
    assert one.accuracy_of_kept is None


def test_extra_kinds_alone_have_no_mean_by_severity(digits):
    result = corruptions(build((1, 8, 8)), *digits, None, ("saturate",), (1,))
    assert result.by_severity == ()
    assert len(result.by_kind) == 1


def test_one_line_says_that_it_is_done(digits, capsys):
    corruptions(build((1, 8, 8)), *digits, None, ("fog", "frost"), (1, 2))
    assert capsys.readouterr().err.startswith("corruptions 4 ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ("fog", "smog")}, "unknown corruption 'smog': did you mean 'fog'"),
        ({"kinds": ()}, "no corruption was chosen"),
        ({"severities": (1, 9)}, "severity 9"),
        ({"bins": 0}, "bins 0"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"seed": -2}, "seed -2"),
    ],
)
def test_settings_are_checked_before_anything_is_asked(digits, changes, message, monkeypatch):
    monkeypatch.setattr(Ensemble, "logits", lambda *_: pytest.fail("the ensemble was asked"))
    with pytest.raises(SettingsError, match=message):
        corruptions(build((1, 8, 8)), *digits, **{"threshold": None, **changes})


def test_images_are_checked(digits):
    images, labels = digits
    for wrong, message in [
        (images[:, :, :7], r"images of \(1, 7, 8\) .* but the ensemble takes \(1, 8, 8\)"),
        (images - 0.5, "not normalised"),
        (images * float("nan"), "not normalised"),
        (images[:0], "one image at least"),
        (images[:9], "9 images and 60 labels"),
    ]:
        with pytest.raises(DataError, match=message):
            corruptions(build((1, 8, 8)), wrong, labels, None, ("fog",), (1,))


@pytest.fixture
def published(tmp_path, scenes):
    """A folder like CIFAR-10-C, of ten images and four kinds."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    labels = np.arange(10, dtype=np.uint8)
    np.save(folder / "labels.npy", np.tile(labels, 5))
    for kind in ("fog", "contrast", "gaussian_noise", "spatter"):
        rows = np.concatenate([corrupt(scenes[:10], kind, level, seed=4) for level in (1, 2, 3, 4, 5)])
        np.save(folder / f"{kind}.npy", rows.transpose(0, 2, 3, 1))
    return folder


def test_files_give_what_their_images_give(published, scenes):
    ensemble, kinds = build((3, 32, 32)), ("fog", "spatter", "contrast")
    read, failures = corruptions_of_files(ensemble, published, 0.5, kinds, (1, 4))
    labels = torch.arange(10)
    made = corruptions(ensemble, torch.from_numpy(scenes[:10]), labels, 0.5, kinds, (1, 4), seed=4)
    assert failures == {}
    assert read.name == "CIFAR-10-C"
    assert (read.by_kind, read.by_severity) == (made.by_kind, made.by_severity)


def test_only_the_first_images(published, scenes):
    read, _ = corruptions_of_files(build((3, 32, 32)), published, None, ("fog",), (5,), limit=3)
    first = torch.from_numpy(scenes[:3]), torch.arange(3)
    assert read.by_kind == corruptions(build((3, 32, 32)), *first, None, ("fog",), (5,), seed=4).by_kind


def test_a_broken_file_is_reported_and_the_rest_goes_on(published):
    (published / "fog.npy").write_bytes((published / "fog.npy").read_bytes()[:5000])
    np.save(published / "contrast.npy", np.zeros((50, 16, 16, 3), dtype=np.uint8))
    result, failures = corruptions_of_files(build((3, 32, 32)), published, None)
    assert [one.kind for one in result.by_kind] == ["gaussian_noise", "spatter"]
    assert len(result.by_severity) == 5
    assert "fog.npy is damaged" in failures["fog"]
    assert "contrast.npy: images of (3, 16, 16)" in failures["contrast"]
    assert "frost.npy does not exist" in failures["frost"]
    assert set(failures) | {"gaussian_noise", "spatter"} == set(KINDS)
    assert set(failures) - set(STANDARD) == {"speckle_noise", "gaussian_blur", "saturate"}


def test_a_folder_without_any_images(published):
    with pytest.raises(DataError, match=r"no corrupted images that can be read: .*snow\.npy does not exist"):
        corruptions_of_files(build((3, 32, 32)), published, None, ("snow",))


def test_a_folder_without_labels(tmp_path):
    with pytest.raises(DataError, match=r"labels\.npy does not exist"):
        corruptions_of_files(build((3, 32, 32)), tmp_path, None)


def test_labels_of_another_set(published):
    np.save(published / "labels.npy", np.tile(np.arange(90, 100), 5))
    with pytest.raises(DataError, match="labels from 90 to 99: with 10 classes"):
        corruptions_of_files(build((3, 32, 32)), published, None)


def test_a_limit_of_nothing(published):
    with pytest.raises(SettingsError, match="limit 0"):
        corruptions_of_files(build((3, 32, 32)), published, None, limit=0)
