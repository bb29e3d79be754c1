"""How a stream of tasks can be learned: the structured learner and what it is compared with, one file a strategy."""

from __future__ import annotations

from structured_ensembles.options.catalogue import STRATEGIES

register = STRATEGIES.register
"""``@register("name")`` above a subclass of `base.Strategy` makes it a strategy, for the command too."""
