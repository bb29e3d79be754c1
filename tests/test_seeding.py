from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.errors import SettingsError
from structured_ensembles.seeding import derived_seed, deterministic, machine, seeded

NUMBERS = st.integers(0, 2**63)


@given(NUMBERS, st.lists(NUMBERS, max_size=3))
def test_a_derived_seed_is_a_function_of_its_arguments_and_small_enough_for_every_generator(seed, path):
    assert derived_seed(seed, *path) == derived_seed(seed, *path)
    assert 0 <= derived_seed(seed, *path) < 2**32


def test_every_part_of_every_run_has_a_seed_of_its_own():
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2, 0, 1), (2, 1, 0)]
    seeds = [derived_seed(seed, *path) for seed in range(50) for path in paths]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("arguments", [(-3,), (0, -3), (0, 1, -3)])
def test_a_negative_number_is_refused_by_name(arguments):
    with pytest.raises(SettingsError, match="seed -3 is negative: use a whole number from 0 on"):
        derived_seed(*arguments)


def test_the_global_generator_starts_from_the_seed_and_goes_on_as_if_nothing_had_been():
    torch.manual_seed(1)
    expected = [torch.rand(3), torch.rand(3)]
    torch.manual_seed(1)
    first = torch.rand(3)
    with seeded(5):
        inside = torch.rand(3)
    assert torch.equal(first, expected[0])
    assert torch.equal(torch.rand(3), expected[1])
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_the_generator_is_put_back_when_the_block_raises():
    state = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(5):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)


def test_several_gpus_are_no_reason_to_warn(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_rng_state", asked.append)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda _, device: asked.append(device))
    with warnings.catch_warnings(), seeded(0):
        warnings.simplefilter("error")
    assert asked == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_a_gpus_settings_are_put_back(monkeypatch, fails):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        with deterministic():
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            assert not torch.backends.cudnn.benchmark
            assert 1 / (not fails)
    except ZeroDivisionError:
        assert fails
    assert torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_the_threads_of_a_cpu_add_up_in_one_order():
    members, rows, width = 4, 128, 512
    start, member = torch.randn(members, width), torch.arange(rows) * members // rows
    gradient = torch.randn(rows, width)

    def summed() -> bytes:
        factors = start.clone().requires_grad_()
        factors[member].backward(gradient)
        return factors.grad.numpy().tobytes()

    threads = torch.get_num_threads()
    torch.set_num_threads(16)
    try:
        with deterministic():
            assert len({summed() for _ in range(10)}) == 1
    finally:
        torch.set_num_threads(threads)


def test_the_generators_of_python_and_numpy_are_seeded_and_put_back():
    def drawn() -> tuple[float, float]:
        return random.random(), float(np.random.rand())  # noqa: NPY002, S311

    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    with seeded(2**40):
        first = drawn()
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    with seeded(2**40):
        assert drawn() == first


def test_the_machine_is_told_with_its_version_of_torch():
    assert machine().startswith(f"torch {torch.__version__}, ")
    assert machine() == machine()
    assert not machine().endswith(", ")
