"""A made-up evaluation with every block, computed plainly from made-up answers about the digits."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from sklearn.datasets import load_digits

from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.report import gallery
from structured_ensembles.options.choices import Combine

MEMBERS, CLASSES, BINS = 4, 10, 15
KINDS = ("gaussian_noise", "shot_noise", "defocus_blur", "motion_blur", "snow", "frost", "fog", "jpeg_compression")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="session")
def images():
    return torch.tensor(load_digits().images[:1000, None] / 16 * 255, dtype=torch.uint8)


@pytest.fixture(scope="session")
def answers():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor(load_digits().target[:1000], dtype=torch.int64)
    ease = torch.rand(1000, generator=generator).pow(0.3)[None, :, None] * 11
    shared = torch.randn(1, 1000, CLASSES, generator=generator)
    own = torch.randn(MEMBERS, 1000, CLASSES, generator=generator)
    logits = ease * torch.nn.functional.one_hot(labels, CLASSES) + 1.5 * shared + 1.2 * own
    return Answers(logits, labels, Combine.PROBABILITIES)


@pytest.fixture(scope="session")
def pictures(images, answers):
    return gallery(images, answers)


@pytest.fixture(scope="session")
def _whole(answers):
    return {
        "schema": "structens-evaluation",
        "version": 1,
        "library": "0.1.0",
        "data": {"name": "digits", "test_images": 1000, "classes": list(NAMES), "input_shape": [1, 8, 8]},
        "predictors": [predictor("structured", answers)],
    }


@pytest.fixture
def evaluation(_whole):
    """A copy that a test may change."""
    return copy.deepcopy(_whole)


def predictor(name, answers):
    return {
        "name": name,
        "file": f"runs/digits/{name}.safetensors",
        "method": "structured",
        "members": MEMBERS,
        "bytes": 1_130_000,
        "failures": {},
        "calibration": calibration(answers),
        "uncertainty": uncertainty(answers),
        "selective": selective(answers),
        "out_of_distribution": [
            unfamiliar(answers, name, shift) for name, shift in (("uniform noise", 1.2), ("SVHN", 0.4))
        ],
        "adversarial": adversarial(answers),
        "corruptions": corruptions(answers),
        "cost": {part: cost(factor) for part, factor in (("ensemble", 1.05), ("dense", 1.0), ("deep", 4.0))},
        "structure": structure(answers),
    }


def accuracy(answers):
    return float(answers.correct.double().mean())


def calibration(answers):
    sure = answers.prediction.probabilities.amax(dim=1)
    index = (sure * BINS).ceil().long().clamp(1, BINS) - 1
    inside = [index == i for i in range(BINS)]
    curve = {
        "confidence": [float(sure[one].mean()) if one.any() else None for one in inside],
        "accuracy": [float(answers.correct[one].double().mean()) if one.any() else None for one in inside],
        "count": [int(one.sum()) for one in inside],
    }
    filled = [i for i in range(BINS) if curve["count"][i]]
    gaps = {i: abs(curve["confidence"][i] - curve["accuracy"][i]) for i in filled}
    ece = sum(gaps[i] * curve["count"][i] for i in filled) / len(sure)
    before = {"accuracy": accuracy(answers), "nll": 0.153, "brier": 0.078, "ece": ece, "ece_30": 1.1 * ece}
    before |= {"adaptive_ece": 0.9 * ece, "classwise_ece": 0.3 * ece, "maximum_ce": max(gaps.values())}
    after = {key: value if key == "accuracy" else 0.4 * value for key, value in before.items()}
    return {"bins": BINS, "temperature": 0.83, "uncalibrated": before, "calibrated": after, "reliability": curve}


def uncertainty(answers):
    doubt, right = answers.prediction.predictive_entropy, answers.correct
    return {
        "predictive_entropy": float(doubt.mean()),
        "expected_entropy": float(answers.prediction.expected_entropy.mean()),
        "mutual_information": float(answers.prediction.mutual_information.mean()),
        "variation_ratio": 0.031,
        "disagreement": 0.048,
        "pairwise_kl": 0.212,
        "entropy_right": float(doubt[right].mean()),
        "entropy_wrong": float(doubt[~right].mean()),
        "histogram": {"edges": edges(), "right": counts(doubt[right]), "wrong": counts(doubt[~right])},
    }


def edges():
    return [i / 20 * math.log(CLASSES) for i in range(21)]


def counts(doubt):
    return doubt.histc(20, 0, math.log(CLASSES)).long().tolist()


def rejection(answers, threshold):
    rejected, right = answers.prediction.predictive_entropy > threshold, answers.correct
    return {
        "rejected_share": share(rejected),
        "right_share_of_rejected": share(right[rejected]),
        "wrong_share_of_rejected": share(~right[rejected]),
        "accuracy_of_kept": share(right[~rejected]),
    }


def share(those):
    return float(those.double().mean()) if len(those) else None


def selective(answers):
    order = answers.prediction.predictive_entropy.argsort()
    wrong = (~answers.correct[order]).double().cumsum(0)
    kept = [10 * i for i in range(1, 101)]
    risk = [float(wrong[n - 1]) / n for n in kept]
    curve = {"coverage": [n / 1000 for n in kept], "risk": risk}
    by_gamma = [{"gamma": i / 3, "threshold": 0.4 + 0.2 * i, **rejection(answers, 0.4 + 0.2 * i)} for i in range(10)]
    numbers = {"aurc": sum(risk) / 100, "augrc": 0.0071, "coverage_at_5_risk": 0.91, "risk_at_80_coverage": risk[79]}
    at = rejection(answers, 0.87)
    return {**numbers, "curve": curve, "threshold": 0.87, "gamma": 1.5, "at_threshold": at, "by_gamma": by_gamma}


def unfamiliar(answers, name, shift):
    doubt = answers.prediction.predictive_entropy
    outside = (doubt * 0.6 + shift).clamp_max(math.log(CLASSES) - 1e-3)
    auroc = float((outside[:, None] > doubt[None]).double().mean())
    scores = {
        kind: {
            "auroc": auroc - cut,
            "aupr_in": auroc - 0.02 - cut,
            "aupr_out": auroc - 0.01 - cut,
            "fpr95": 1.05 - auroc,
        }
        for kind, cut in (("entropy", 0), ("mutual_information", 0.03), ("max_probability", 0.01), ("energy", 0.05))
    }
    histogram = {"edges": edges(), "inside": counts(doubt), "outside": counts(outside)}
    return {"name": name, "images": 1000, "scores": scores, "histogram": histogram}


def adversarial(answers):
    def rows(harder):
        return [
            {
                "epsilon": epsilon,
                "accuracy": accuracy(answers) * math.exp(-harder * epsilon),
                "nll": 0.15 + 9 * epsilon,
                "predictive_entropy": min(0.4 + 3 * epsilon, 2.0),
                "rejected_share": min(0.06 + 2 * epsilon, 0.8),
            }
            for epsilon in (0.001, 0.01, 0.02, 0.1, 0.5)
        ]

    members = [f"member {m + 1}" for m in range(MEMBERS)]
    table = [
        [0.9 - 0.03 * row, *(0.5 if row == m else 0.8 + 0.02 * m for m in range(MEMBERS))] for row in range(MEMBERS)
    ]
    transfer = {"epsilon": 0.02, "crafted_on": members, "tested_on": ["ensemble", *members], "accuracy": table}
    return {"images": 1000, "fgsm": rows(4), "pgd": rows(9), "transfer": transfer}


def corruptions(answers):
    def row(key, value, harm):
        shares = {"rejected_share": 0.06 + 0.5 * harm, "accuracy_of_kept": accuracy(answers) - 0.15 * harm}
        return {
            key: value,
            "accuracy": accuracy(answers) - 0.6 * harm,
            "nll": 0.2 + harm,
            "ece": 0.02 + 0.1 * harm,
            **shares,
        }

    by_severity = [row("severity", severity, severity / 6) for severity in range(1, 6)]
    by_kind = [row("kind", kind, (i % 5 + 1) / 7) for i, kind in enumerate(KINDS)]
    return {"name": "CIFAR-10-C-like", "by_severity": by_severity, "by_kind": by_kind}


def cost(factor):
    return {
        "parameters": round(272_474 * factor),
        "buffers": round(1_376 * factor),
        "bytes": round(1_080_000 * factor),
        "flops": round(81_500_000 * factor),
        "peak_bytes": round(260_000_000 + 30_000_000 * factor),
        "milliseconds_batch_1": 2.31 * factor,
        "milliseconds_batch_128": 61.4 * factor,
    }


def structure(answers):
    votes = answers.prediction.votes
    agreement = [[float((a == b).double().mean()) for b in votes] for a in votes]
    overlap = [[1.0 if a == b else 0.28 + 0.03 * (a + b) for b in range(MEMBERS)] for a in range(MEMBERS)]
    layers = [
        {
            "layer": f"layer{i // 6 + 1}.{i % 6 // 2}.conv{i % 2 + 1}",
            "base": 16 * 2 ** (i // 6),
            "widths": [
                round(16 * 2 ** (i // 6) * (0.42 + 0.2 * math.sin(i + m) / (1 + i / 9))) for m in range(MEMBERS)
            ],
            "overlap": overlap,
        }
        for i in range(18)
    ]
    return {"agreement": agreement, "layers": layers}
