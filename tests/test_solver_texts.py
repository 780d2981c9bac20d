"""The solvers that help and docstrings list for a model are those that can learn it."""

import re
from dataclasses import fields, replace
from itertools import product
from typing import Any

import pytest
from typer.testing import CliRunner

from ooc_train.cli import app
from ooc_train.core.settings import settings_of
from ooc_train.estimators.shared_parameters import ESTIMATORS
from ooc_train.models.model import DataFigures
from ooc_train.models.model_registry import MODELS
from ooc_train.objective.losses import LOSSES
from ooc_train.optimizers.differential_privacy import DifferentiallyPrivate
from ooc_train.solvers.registry import Settings, solver_for
from ooc_train.solvers.training_settings import EXACT, Training, training_settings

SETTINGS = Settings(tol=1e-4, batch_size=10, learning_rate=0.1)
PRIVATE = DifferentiallyPrivate(noise_multiplier=1.0, max_grad_norm=1.0)

VARIED: dict[str, Any] = {
    "alpha": [0.0, 1.0],
    "l1_ratio": [0.0, 0.5],
    "l1": [0.0, 1.0],
    "penalty": ["l2", "l1", "elasticnet"],
    "positive": [False, True],
    "power": [0.0, 1.5],
    "loss": None,  # every choice
}
"""Settings that decide which solvers fit."""


BINARY = [make() for make in LOSSES.values() if make.target != "codes"]
"""Losses for two classes, or for numbers."""


def variants(model):
    """Models of a class with settings that decide which solvers fit."""
    axes = {}
    for name in VARIED.keys() & settings_of(model).keys():
        constraint = settings_of(model)[name].constraint
        words = [word for word in getattr(constraint, "words", ()) if word is not None]
        values = VARIED[name] or words or BINARY
        axes[name] = [value for value in values if not words or value in words]
    for values in product(*axes.values()):
        yield model(**dict(zip(axes, values, strict=True)))


def fits(solver, problem):
    """Whether a solver accepts a problem."""
    try:
        solver_for(solver, SETTINGS, problem)
    except ValueError as error:
        if "needs" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_the_solvers_of_a_model_are_those_that_fit_one_of_its_settings(model):
    found = set()
    for each in variants(model):
        classes = 2 if each.is_classifier else 0
        problem = each.problem(DataFigures(1_000, 5, 1, classes, 1_000.0))
        found |= {name for name in EXACT if fits(name, problem)}
        found |= {"updates"} if fits("sgd", problem) else set()
        found |= {"private"} if fits(PRIVATE, problem) else set()
    assert found == set(model.solvers)


def test_docstrings_have_the_defaults_and_the_solvers_of_their_model():
    for model, estimator in ESTIMATORS.items():
        text = " ".join(str(estimator.__doc__).split())
        assert f"epochs of updates. None is {model.default_max_iter:,}." in text
        listed = {name for name in EXACT if f" - {name}: " in text}
        assert listed == set(model.solvers) & set(EXACT)


def shown(*arguments):
    """The help of a command, in words."""
    ran = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "200"})
    assert ran.exit_code == 0, ran.output
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", ran.output).split())


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("train", "--model", "sgd-classifier"), ["(default: 1)", "updates (default: 1000)"]),
        (("train", "--model", "mlp-classifier"), ["parameters (default: auto)", "(default: 200)"]),
        (("train", "--model", "linear"), ["parameters (default: full)", "(default: 1e-06)"]),
        (("follow",), ["parameters (default: 32)"]),
        (("follow", "--model", "sgd-classifier"), ["parameters (default: 1)"]),
    ],
)
def test_help_has_the_defaults_of_the_model(arguments, texts):
    help_text = shown(*arguments)
    assert all(text in help_text for text in texts), help_text
    assert not re.search(r",\.(?!\.)| \.( |$)", help_text)


def test_the_help_of_follow_hides_what_it_refuses():
    assert "--max-passes" in shown("train")
    assert not {"--max-passes", "--max-iter", "--replicas"} & set(shown("follow").split())


def test_settings_of_a_model_are_those_of_training():
    for model in MODELS.values():
        assert list(training_settings(model)) == [field.name for field in fields(Training)]
        solver = training_settings(model)["solver"].constraint
        own = settings_of(Training)["solver"].constraint
        assert solver == replace(own, words=solver.words)
        assert set(solver.words) < set(own.words) or set(model.solvers) >= set(EXACT)
