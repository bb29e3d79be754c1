"""The two bundles of settings in one place: the default, and what was published."""

from __future__ import annotations

from structured_ensembles.options.budget import Budget
from structured_ensembles.options.choices import Combine, Family, Placement, Preset, Rule, Schedule, Scope
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.options.search import SearchSettings
from structured_ensembles.options.selection import SelectionSettings
from structured_ensembles.options.training import TrainingSettings


def settings(preset: Preset = Preset.DEFAULT, family: Family = Family.OTHER) -> Settings:
    """The settings of a preset.

    Args:
        preset: Which one.
        family: Of the base network: published learning rates and patience differ by it.
    """
    return _published(family) if preset is Preset.PUBLISHED else _default(family)


def _default(family: Family) -> Settings:
    return Settings(
        scope=Scope.COUPLED,
        search=SearchSettings(
            epochs=10, max_steps=300, batch_size=128, learning_rate=1e-2, diversity={"overlap": 0.01}
        ),
        rank_batches=100,
        selection=SelectionSettings(rule=Rule.PER_COST),
        budget=Budget(1, relative=True),
        training=TrainingSettings(
            epochs=30, max_steps=5000, batch_size=64, learning_rate=0.1 if family is Family.RESNET else 0.05
        ),
    )


def _published(family: Family) -> Settings:
    return Settings(
        scope=Scope.PRIVATE,
        search=SearchSettings(placement=Placement.BEFORE_NORM, diversity={"mmd": 0.01}),
        selection=SelectionSettings(rule=Rule.GLOBAL, keep=0.5),
        training=TrainingSettings(
            epochs=200,
            batch_size=128,
            learning_rate=0.01 if family is Family.VGG else 0.1,
            nesterov=False,
            weight_decay=0.0,
            schedule=Schedule.MULTISTEP,
            patience=10 if family is Family.VGG else 20,
        ),
        combine=Combine.LOGITS,
    )
