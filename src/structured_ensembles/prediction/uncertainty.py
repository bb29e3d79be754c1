"""What the members of an ensemble say together, and how much they doubt it.

Shapes: M members, B batch, K classes; N examples of a measurement. Every entropy is in nats, from 0 to ln K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.options.choices import Combine
from structured_ensembles.types import Prediction


def predict_from_logits(logits: Tensor, combine: Combine = Combine.PROBABILITIES) -> Prediction:
    """Combine the members' logits into one prediction with its uncertainty.

    Everything is computed in float32 or wider, also for half-precision logits of any size. A logit of minus infinity is
    a class that cannot be; a NaN goes through to every number of its input.

    With ``Combine.PROBABILITIES`` predictive entropy = expected entropy + mutual information, where the last is never
    negative (rounding is clamped away). With ``Combine.LOGITS`` the predictive entropy is that of the combined
    probabilities, which are not the members' mean: ``mutual_information`` still holds predictive minus expected
    entropy, but it is no mutual information any more. It can be truly negative, so it is then left as it comes.

    Args:
        logits: (M, B, K), the members' outputs before any softmax.
        combine: Mean of the probabilities, or softmax of the mean logits.

    Raises:
        DataError: ``logits`` is not (M, B, K) with at least one member and one class.
        SettingsError: ``combine`` is no such choice.
    """
    _check_logits(logits)
    combine = Combine.named(combine)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    own = logits.softmax(dim=-1)
    together = logits.mean(dim=0).softmax(dim=-1) if combine is Combine.LOGITS else own.mean(dim=0)
    predictive, expected = entropy(together), entropy(own).mean(dim=0)
    difference = predictive - expected
    return Prediction(
        probabilities=together,
        predictive_entropy=predictive,
        expected_entropy=expected,
        mutual_information=difference if combine is Combine.LOGITS else difference.clamp_min(0),
        votes=logits.argmax(dim=-1),
    )


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats of distributions over the last dimension: (..., K) -> (...), float32 or wider."""
    wide = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
    return torch.sum(torch.special.entr(wide), dim=-1)


def variation_ratio(votes: Tensor, classes: int) -> Tensor:
    """The share of members that did not vote for the most popular class.

    Args:
        votes: (M, B), each member's class, int64.
        classes: K.

    Returns:
        (B,), from 0 (unanimous) to 1 - 1 / min(M, K), float32.

    Raises:
        DataError: ``votes`` is not (M, B), or votes for a class outside 0 ... K - 1.
    """
    _check_votes(votes)
    if votes.numel() and not 0 <= int(votes.min()) <= int(votes.max()) < classes:
        low, high = int(votes.min()), int(votes.max())
        raise DataError(f"votes from {low} to {high}: with {classes} classes they go from 0 to {classes - 1}")
    counts = torch.zeros(votes.shape[1], classes, device=votes.device)
    counts.scatter_add_(1, votes.T, torch.ones_like(votes.T, dtype=counts.dtype))
    return 1 - counts.amax(dim=1) / len(votes)


def disagreement(votes: Tensor) -> Tensor:
    """The share of pairs of members that vote for different classes.

    Args:
        votes: (M, B), each member's class, int64.

    Returns:
        (B,), float32; its mean is the ensemble's disagreement. Zero for a single member, which has no pair.

    Raises:
        DataError: ``votes`` is not (M, B).
    """
    _check_votes(votes)
    members = len(votes)
    different = (votes[:, None] != votes[None]).sum(dim=(0, 1))
    return different / max(members * (members - 1), 1)


def pairwise_kl(logits: Tensor) -> Tensor:
    """How far the members' distributions lie apart: the mean of KL(p_i || p_j) over ordered pairs of members.

    It equals the sum over classes of the covariance (divided by M - 1) between the members' p and ln p, and is computed
    as that: without a loop over pairs, and without the difference of two large numbers. A probability below float32's
    smallest normal number counts as that number: a class that one member alone rules out costs 87.3 nats, not infinity.

    Args:
        logits: (M, B, K), the members' outputs before any softmax.

    Returns:
        (B,), in nats, float32 or wider. Zero for a single member, which has no pair.

    Raises:
        DataError: ``logits`` is not (M, B, K) with at least one member and one class.
    """
    _check_logits(logits)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logs = wide.log_softmax(dim=-1).clamp_min(math.log(torch.finfo(torch.float32).tiny))
    own = wide.softmax(dim=-1)
    products = (own - own.mean(dim=0)) * (logs - logs.mean(dim=0))
    return products.sum(dim=(0, 2)).clamp_min(0) / max(len(logits) - 1, 1)


def _check_logits(logits: Tensor) -> None:
    if logits.dim() != 3 or logits.shape[0] == 0 or logits.shape[2] == 0:
        shape = tuple(logits.shape)
        raise DataError(f"logits of shape {shape}: pass (members, batch, classes), one member and one class at least")


def _check_votes(votes: Tensor) -> None:
    if votes.dim() != 2 or len(votes) == 0:
        raise DataError(f"votes of shape {tuple(votes.shape)}: pass (members, batch), with one member at least")


@dataclass(frozen=True)
class Rejection:
    """What abstaining above an entropy threshold does; shares are from 0 to 1, NaN where there is nothing to share.

    Attributes:
        rejected_share: Rejected examples among all.
        right_share_of_rejected: Correctly predicted examples among the rejected: the price.
        wrong_share_of_rejected: Wrongly predicted examples among the rejected: the gain.
        accuracy_of_kept: Correctly predicted examples among those that are kept.
    """

    rejected_share: float
    right_share_of_rejected: float
    wrong_share_of_rejected: float
    accuracy_of_kept: float


def threshold_above(quartiles: tuple[float, float], gamma: float) -> float:
    """The predictive entropy above which to abstain: q3 + gamma (q3 - q1) of right answers, in nats."""
    q1, q3 = quartiles
    return q3 + gamma * (q3 - q1)


def quartiles(entropies: Tensor) -> tuple[float, float]:
    """The lower and the upper quartile of at least one entropy, linearly interpolated.

    Raises:
        DataError: An entropy is NaN or infinite.
    """
    entropies = entropies.flatten().double()
    check_finite(entropies)
    lower, upper = entropies.quantile(
        torch.tensor([0.25, 0.75], dtype=entropies.dtype, device=entropies.device)
    ).tolist()
    return lower, upper


def rejection_report(entropies: Tensor, correct: Tensor, threshold: float) -> Rejection:
    """Measure what rejecting every example with an entropy ABOVE the threshold would do.

    Args:
        entropies: (N,), predictive entropies, in nats.
        correct: (N,), bool, whether each example was predicted correctly.
        threshold: In nats, from `threshold_above`, or infinity.

    Raises:
        DataError: The two differ in shape, are empty, ``correct`` is not boolean, or an entropy is not finite.
        SettingsError: ``threshold`` is NaN.
    """
    check_pairs(entropies, correct, "entropy", "entropies")
    check_finite(entropies)
    if math.isnan(threshold):
        raise SettingsError("threshold nan: pass an entropy in nats, or infinity to reject nothing")
    rejected = entropies > threshold
    return Rejection(
        rejected_share=_share(rejected),
        right_share_of_rejected=_share(correct[rejected]),
        wrong_share_of_rejected=_share(~correct[rejected]),
        accuracy_of_kept=_share(correct[~rejected]),
    )


def check_pairs(values: Tensor, correct: Tensor, one: str, several: str) -> None:
    """Refuse what is not one value, and whether the answer is right, for each example.

    Args:
        values: (N,).
        correct: (N,), bool.
        one: What a value is called.
        several: What values are called.

    Raises:
        DataError: They differ in shape, are empty, or ``correct`` is not boolean.
    """
    if values.dim() != 1 or values.shape != correct.shape or values.numel() == 0:
        shapes = f"{tuple(values.shape)} {several} and {tuple(correct.shape)} answers"
        raise DataError(f"{shapes}: pass one {one} and one answer per example, for one example at least")
    if correct.dtype != torch.bool:
        raise DataError(f"correct is {correct.dtype}: pass booleans, for example classes == labels")


def check_finite(entropies: Tensor) -> None:
    """Refuse entropies that are NaN or infinite, with a DataError."""
    broken = int((~entropies.isfinite()).sum())
    if broken:
        raise DataError(f"{broken} of {entropies.numel()} entropies are NaN or infinite: look for NaN in the logits")


def require_finite(inputs: Tensor) -> None:
    """Refuse to answer for NaN and infinite inputs, of which nothing is known, not even how unsure to be.

    Raises:
        DataError: Naming the first.
    """
    wrong = ~torch.isfinite(inputs).reshape(len(inputs), -1).all(dim=1)
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} of {len(inputs)} inputs hold NaN or infinite values, the first is input "
            f"{int(wrong.nonzero()[0, 0])}: mend or drop them"
        )


def _share(those: Tensor) -> float:
    """How many of N booleans are true, from 0 to 1; NaN if there are none."""
    return float(those.double().mean())
