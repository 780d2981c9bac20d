"""The privacy that updates cost, by the accountant of dp-accounting."""

import logging
from functools import lru_cache
from math import inf
from typing import Any

from ooc_train.core.optional_packages import needed_package
from ooc_train.core.text import counted
from ooc_train.optimizers.differential_privacy import DifferentiallyPrivate


def privacy_budget(
    private: DifferentiallyPrivate, n_rows: int, share: float, updates: int
) -> dict[str, Any]:
    """Return epsilon at delta, and what it follows from, in JSON's types.

    Each of `n_rows` rows takes part in each of `updates` updates with probability `share`: that is
    a composition of Poisson-sampled Gaussian mechanisms. Epsilon is an upper bound by Renyi
    differential privacy (Mironov, Talwar and Zhang 2019), for data that differ in one row, which
    adds nothing to any sum in one of them.

    Raises
    ------
    ValueError
        If the package dp-accounting is missing, or delta bounds nothing.
    """
    delta = private.delta_of(n_rows)
    epsilon = _epsilon(private.noise_multiplier, share, updates, delta)
    if not 0.0 <= epsilon < inf:
        raise ValueError(
            f"no epsilon is known for {counted(updates, 'update')} of noise_multiplier="
            f"{private.noise_multiplier:g}; use a larger noise_multiplier or fewer epochs"
        )
    return {
        "epsilon": epsilon,
        "delta": delta,
        "noise_multiplier": private.noise_multiplier,
        "max_grad_norm": private.max_grad_norm,
        "sampling_probability": share,
        "updates_of_a_row": updates,
        "accountant": "RDP",
    }


@lru_cache
def _epsilon(noise_multiplier: float, share: float, updates: int, delta: float) -> float:
    with needed_package("dp_accounting", "budgets of private updates", "dp-accounting"):
        import dp_accounting
    accountant = dp_accounting.rdp.RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    if share < 1.0:
        event = dp_accounting.PoissonSampledDpEvent(share, event)
    log = logging.getLogger("absl")
    level = log.level
    # It warns of orders that it leaves out, without which epsilon is an upper bound as well.
    log.setLevel(logging.ERROR)
    try:
        accountant.compose(dp_accounting.SelfComposedDpEvent(event, updates))
        return float(accountant.get_epsilon(delta))
    finally:
        log.setLevel(level)
