"""HAT: gates and their gradients, what is frozen between them, and what that takes to store."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies.hat import HAT, Gated, Gates
from structured_ensembles.data.sources import Split, as_float
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.options.choices import Optimiser
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.types import Group

from ..learners import published_half_vgg11, unpacked

WEIGHTS = {"0.weight": 8 * 1 * 9, "4.weight": 12 * 8 * 9}
CHANNELS = (8, 12)


class Residual(nn.Module):
    """A stem, a block whose output is added to its input, and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(6, 10, 3, padding=1), nn.BatchNorm2d(10), nn.PReLU(10))
        self.second = nn.Sequential(nn.Conv2d(10, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.depthwise = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.stem(inputs)
        result: Tensor = self.depthwise((stream + self.second(self.first(stream))).relu())
        return result


@pytest.fixture(name="learner")
def _learner(tiny_backbone, tiny_settings):
    return HAT(tiny_backbone, tiny_settings())


def logits(learner, tasks, upto):
    with torch.no_grad():
        return [learner.network(n)(as_float(task.test.images)) for n, task in enumerate(tasks[:upto])]


def gates(embeddings, *, used=None, batches=5, steepness=400.0, pace=1.0, widths=None) -> Gates:
    values = torch.tensor(embeddings)
    groups = [Group(f"g{n}", width, (), private=True) for n, width in enumerate(widths or [len(values)])]
    flags = torch.zeros(len(values), dtype=torch.bool) if used is None else torch.tensor(used)
    return Gates(groups, values, flags, batches, steepness, pace)


@pytest.mark.parametrize("optimiser", list(Optimiser))
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_old_tasks_stay_to_the_bit_whatever_the_optimiser(tiny_backbone, tiny_settings, tiny_stream, optimiser, kind):
    """Momentum and decay move weights whose gradient is zero; gates are rounded, so that nothing drifts."""
    decaying = TrainingSettings(
        epochs=2, batch_size=16, optimiser=optimiser, learning_rate=0.02, nesterov=False, weight_decay=0.1
    )
    settings = replace(tiny_settings(), training=decaying)
    learner, tasks = HAT(tiny_backbone if kind == "plain" else Residual, settings), tiny_stream()
    learner.learn(tasks[0])
    answers = logits(learner, tasks, 1)
    for task in tasks[1:]:
        learner.learn(task)
    assert all(map(torch.equal, answers, logits(learner, tasks, 1)))


def test_a_weight_is_frozen_once_both_of_its_ends_are_in_use(learner, tiny_stream):
    drawn = {name: learner.weight(name).clone() for name in WEIGHTS}
    first, second, _ = tiny_stream()
    learner.learn(first)
    before = {name: learner.weight(name).clone() for name in WEIGHTS}
    low, high = learner.open[0].split(CHANNELS)
    frozen = {
        "0.weight": low.view(8, 1, 1, 1).expand(8, 1, 3, 3),
        "4.weight": (high[:, None] & low).view(12, 8, 1, 1).expand(12, 8, 3, 3),
    }
    for name, mask in frozen.items():
        assert torch.equal(learner.masks(0)[name], mask)
        assert torch.equal(before[name][~mask], drawn[name][~mask]), "what no task reads is as drawn"
        assert (before[name][mask] != drawn[name][mask]).all()
    learner.learn(second)
    for name, mask in frozen.items():
        mine = learner.masks(1)[name] & ~mask
        assert mine.any()
        assert torch.equal(learner.weight(name)[mask], before[name][mask])
        assert (learner.weight(name)[mine] != before[name][mine]).all()


def test_what_is_served_answers_as_the_gated_network_does(learner, tiny_stream, monkeypatch):
    trained, train = [], learner.train

    def kept(*arguments, **rest):
        trained.append(train(*arguments, **rest))
        return trained[-1]

    monkeypatch.setattr(learner, "train", kept)
    tasks = tiny_stream()
    for number, task in enumerate(tasks):
        learner.learn(task)
        inputs = as_float(task.test.images)
        with torch.no_grad():
            torch.testing.assert_close(learner.network(number)(inputs), trained[-1](inputs), rtol=1e-4, atol=1e-5)
    served = learner.network(0)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in served.modules())
    shut = ~learner.open[0].split(CHANNELS)[1]
    assert not served.head[-1].weight[:, shut].any()
    assert served.head[-1].weight[:, ~shut].all()


def test_gates_grow_steeper_in_every_epoch_and_are_rounded_in_its_second_half():
    network = gates([0.01, -0.01], batches=5)
    scales, values = [], []
    for _ in range(10):
        network.advance()
        scales.append(network.scale())
        values.append(network()[0].item())
    epoch = [1 / 400 + (400 - 1 / 400) * done / 4 for done in range(5)]
    assert scales == pytest.approx(epoch * 2)
    soft = [1 / (1 + math.exp(-s * 0.01)) for s in epoch[:2]]
    assert values == pytest.approx([*soft, 1, 1, 1] * 2)
    single = gates([0.3], batches=1)
    single.advance()
    assert single.scale() == 400


@pytest.mark.parametrize("done", [1, 2, 4, 5])
def test_embeddings_have_the_published_compensated_gradient(done):
    values = [-2.0, -0.1, 0.0, 0.02, 1.5]
    network = gates(values, batches=5)
    for _ in range(done):
        network.advance()
    upstream = torch.tensor([1.0, -2.0, 3.0, 4.0, -5.0])
    (network() * upstream).sum().backward()
    s = network.scale()
    for value, got, factor in zip(values, network.raw.grad.tolist(), upstream.tolist(), strict=True):
        if abs(s * value) > 300:
            continue
        sigmoid = 1 / (1 + math.exp(-s * value))
        plain = factor * s * sigmoid * (1 - sigmoid)
        # Up to the rounding of sigmoid, where it is almost 1.
        published = plain * 400 * (math.cosh(s * value) + 1) / (s * (math.cosh(value) + 1))
        if sigmoid < 1 - 1e-9:
            assert got == pytest.approx(published, rel=1e-4)


def test_rounded_gates_leave_one_channel_of_every_group_open():
    network = gates([1.0, -1.0, -3.0, -2.0, -4.0], widths=[2, 3]).eval()
    assert network.opened().tolist() == [True, False, False, True, False]
    assert network().tolist() == [1, 0, 0, 1, 0]


def test_embeddings_stay_where_gates_have_a_gradient_and_move_at_their_pace():
    network = gates([50.0, -50.0, 1.0], pace=4.0)
    network.advance()
    assert (4 * network.raw).tolist() == [6, -6, 1]
    network().sum().backward()
    torch.optim.Adam([network.raw], lr=0.1).step()
    assert (4 * network.raw)[2].item() == pytest.approx(1 - 4 * 0.1)


def test_the_penalty_is_the_mean_gate_of_channels_that_are_free():
    network = gates([0.5, 2.0, -1.0], used=[False, True, False])
    network.advance()
    expected = sum(1 / (1 + math.exp(-value / 400)) for value in (0.5, -1.0)) / 2
    assert network.penalty().item() == pytest.approx(expected)
    full = gates([0.5, 2.0], used=[True, True])
    full.advance()
    assert full.penalty().item() == 0


def test_a_stronger_penalty_opens_fewer_new_channels(tiny_backbone, tiny_settings, tiny_stream):
    opened = []
    for strength in (0.0, 20.0):
        learner = HAT(tiny_backbone, tiny_settings(6), strength=strength)
        learner.learn(tiny_stream()[0])
        opened.append(int(learner.open[0].sum()))
    assert opened[1] < opened[0]


def test_normalisation_measures_only_with_rounded_gates(learner, tiny_stream):
    task = tiny_stream()[0]
    learner.learn(task)
    network = learner._gated(learner.start(task), learner.open[0], 4).train()
    norm = network.network.backbone[1]
    changed = []
    for _ in range(8):
        before = norm.running_mean.clone()
        network(as_float(task.train.images))
        changed.append(not torch.equal(before, norm.running_mean))
    assert changed == [False, False, True, True] * 2
    assert network.no_weight_decay() < {name for name, _ in network.named_parameters()}
    assert isinstance(network, Gated)
    assert not learner.shared[4]._forward_pre_hooks


def test_what_is_served_is_enough_to_rebuild_every_task(learner, tiny_stream):
    for task in tiny_stream():
        learner.learn(task)
    served = learner.served()
    opened = [unpacked(served["masks"][f"task_{task}"], 1, sum(CHANNELS)).bool().split(CHANNELS) for task in (0, 1, 2)]
    low, high = (torch.stack([parts[at] for parts in opened]).any(0) for at in (0, 1))

    def between(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"0.weight": a.repeat_interleave(9), "4.weight": (b[:, None] & a).flatten().repeat_interleave(9)}

    for name, union in between(low, high).items():
        weight = torch.zeros(WEIGHTS[name])
        weight[union] = served["shared"][name]
        for task, parts in enumerate(opened):
            read = learner.network(task).backbone.get_parameter(name).detach().flatten()
            assert torch.equal(torch.where(between(*parts)[name], weight, 0.0), read)
    held = sum(int(union.sum()) for union in between(low, high).values())
    memory = learner.memory()
    bias = 12
    assert memory.shared == 4 * (held + 3 * bias)
    assert memory.normalisation == 4 * 3 * 4 * sum(CHANNELS)
    assert memory.masks == 3 * math.ceil(sum(CHANNELS) / 8)
    assert learner.capacity() == pytest.approx({"0": 1 - int(low.sum()) / 8, "4": 1 - int(high.sum()) / 12})


def test_gates_of_half_vgg11_take_172_bytes_a_task(tiny_settings):
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(images, torch.arange(4) % 2)
    learner = HAT(lambda: published_half_vgg11((3, 32, 32)), tiny_settings(1))
    assert learner.memory().total == 0
    learner.learn(Task("task", split, split, split, ("a", "b")))
    assert learner.memory().masks == (32 + 64 + 2 * 128 + 4 * 256) / 8 == 172


def test_settings_outside_their_limits_are_refused(tiny_backbone, tiny_settings):
    with pytest.raises(
        SettingsError, match=r"strength -1.* at least 0.*; steepness 0.5 .* at least 1.*; pace 0 .* above"
    ):
        HAT(tiny_backbone, tiny_settings(), strength=-1, steepness=0.5, pace=0)
    with pytest.raises(SettingsError, match="steepness nan"):
        HAT(tiny_backbone, tiny_settings(), steepness=math.nan)


def test_weights_that_belong_to_no_channel_are_refused(tiny_settings, tiny_stream):
    learner = HAT(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.LayerNorm([4, 4, 4])), tiny_settings()
    )
    with pytest.raises(NetworkError, match=r"weight of '2' \(LayerNorm\) is no task's own"):
        learner.learn(tiny_stream()[0])
    assert learner.groups == ()
