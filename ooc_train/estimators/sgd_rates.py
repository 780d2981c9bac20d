"""scikit-learn's parameters of SGD: `eta0`, `power_t`, `average`, and its `tol=None`."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ooc_train.core.named_classes import plain
from ooc_train.core.schema import shown
from ooc_train.core.settings import Flag, Number, Setting, defaults_of, settings_of
from ooc_train.estimators.estimator import Estimator
from ooc_train.estimators.validation import EARLY_STOPPING, Rows, with_validation_share
from ooc_train.solvers.training_settings import Training

STOCHASTIC_RATES: Mapping[str, Setting] = MappingProxyType(
    {
        "eta0": Setting(
            Number((None,), above=0.0),
            'Rate of `learning_rate="constant"`, "invscaling" and "adaptive", on scaled columns. '
            'None is "auto". "adaptive" divides the rate by 5 after each 5 epochs in a row that '
            "gain less than `tol`, as long as it is above 1e-6.",
        ),
        "power_t": Setting(
            Number(above=0.0),
            'Power of `learning_rate="invscaling"`: the n-th update has `eta0 / n**power_t`.',
        ),
        "average": Setting(
            Flag(),
            "Only True: the model is always an average of the parameters over the updates, with "
            "weights that grow as the third power of the updates.",
        ),
        "tol": Setting(
            settings_of(Training)["tol"].constraint,
            "A run ends once `n_iter_no_change` epochs in a row each lowered the mean objective by "
            "less than this. None is that of scikit-learn: all `max_iter` epochs.",
        ),
        "early_stopping": EARLY_STOPPING,
    }
)
"""Declarations of parameters that become `learning_rate`, or accept more values than elsewhere."""

_LEAST_ADAPTIVE = 1e-6
"""The rate from which on scikit-learn's "adaptive" is not lowered any more."""


@dataclass(kw_only=True, eq=False, repr=False)
class StochasticRates(Estimator):
    """The base of estimators that also take scikit-learn's parameters of the learning rate."""

    eta0: float | None = None
    power_t: float = 0.25
    average: bool = True

    def _parameters(self, validation: Rows) -> dict[str, Any]:
        """Return the parameters, with `eta0` and `power_t` made part of the learning rate.

        Raises
        ------
        ValueError
            If one of them cannot be used, or goes with another learning rate.
        """
        parameters = super()._parameters(validation)
        if plain(self.average) != 1:
            raise ValueError(
                f"average={shown(self.average)}: the model is an average of the parameters over "
                "all updates always; leave it out"
            )
        rate = parameters["learning_rate"]
        # First of all, since it says what to use in place of "optimal".
        if rate != "adaptive":
            settings_of(Training)["learning_rate"].constraint.check("learning_rate", rate)
        eta0, power_t = (
            STOCHASTIC_RATES[name].constraint.check(name, parameters[name])
            for name in ("eta0", "power_t")
        )
        if eta0 is not None and rate not in ("constant", "invscaling", "adaptive"):
            raise _unused("eta0", eta0, "'constant', 'invscaling' or 'adaptive'", rate)
        if rate != "invscaling" and power_t != defaults_of(type(self))["power_t"]:
            raise _unused("power_t", power_t, "'invscaling'", rate)
        settings = [] if eta0 is None else [repr(eta0)]
        if rate == "invscaling":
            settings.append(f"power_t={power_t!r}")
        elif rate == "adaptive":
            tol = settings_of(Training)["tol"].constraint.check("tol", parameters["tol"])
            rate = "constant" if tol is None else "plateau"  # without tol there is always progress
            if tol is not None:
                settings.append(f"min_delta={float(tol)!r}")
            if tol is not None and eta0 is not None:
                settings.append(f"last={min(1.0, _LEAST_ADAPTIVE / eta0)!r}")
        if settings or parameters["learning_rate"] == "adaptive":
            parameters["learning_rate"] = f"{rate}:{','.join(settings)}"
        if parameters["tol"] is None:
            parameters["tol"] = 0.0
        return with_validation_share(parameters, validation)


def _unused(name: str, value: float, words: str, rate: Any) -> ValueError:
    return ValueError(
        f"{name}={value!r} goes with learning_rate={words}, and this is "
        f"learning_rate={shown(rate)}; leave one of them out"
    )
