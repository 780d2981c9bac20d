"""Why tests of scikit-learn fail with our estimators in the place of theirs."""

import re
from typing import NamedTuple

from tests.benchmarks.sklearn_tests.running import Outcome


class Reason(NamedTuple):
    """Why tests fail.

    Attributes
    ----------
    kind : str
        "absent": ours refuses it with a clear error. "different": ours does otherwise.
    test, text : str
        Patterns that are found in the name of the test, and in its error.
    why : str
        The reason, in a line.
    """

    kind: str
    test: str
    text: str
    why: str


_ABSENT, _DIFFERENT = "absent", "different"

REASONS: tuple[Reason, ...] = (
    # Of all modules.
    Reason(
        _DIFFERENT, "", r"dtype\('float64'\)|float32",
        "coefficients are float64 whatever X is",
    ),
    Reason(
        _ABSENT, "", "DID NOT WARN.*FutureWarning",
        "warnings of scikit-learn about changes of its own settings",
    ),
    Reason(
        _ABSENT, "", r"KeyError: 'n_jobs'|has no attribute '(precompute|intercept_scaling|n_\w+)'",
        "settings of how scikit-learn computes are no parameters here",
    ),
    Reason(
        _ABSENT, "", "has no attribute '(_base_loss|_predict_proba_lr|_expanded_class_weight)'",
        "private attributes of scikit-learn",
    ),
    Reason(_ABSENT, "", "has no attribute 'sparsify'", "`sparsify`; there is `sparse_coef_`"),
    Reason(
        _DIFFERENT, "max_iter|convergence", "did not match any of the .* warnings emitted",
        "a ConvergenceWarning in other words, with the figures",
    ),
    Reason(
        _ABSENT, "", "un-serialize|PicklingError|pickle",
        "stand-ins are made while the tests run, and other processes cannot load them",
    ),
    # Coordinate descent.
    Reason(
        _DIFFERENT, "test_enet_nonfinite_params|test_underflow_or_overflow",
        "whose square no float64 holds", "numbers whose square overflows are refused by row",
    ),
    Reason(
        _DIFFERENT, "test_lasso_dual_gap", "Not equal to tolerance",
        "a duality gap of 2e-15 that is rounded in another order",
    ),
    Reason(
        _DIFFERENT, "test_lasso_alpha_warning", "DID NOT WARN",
        "alpha=0 is least squares, and solved as such",
    ),
    Reason(
        _ABSENT, "incorrect_gram|overridden_gram", "DID NOT",
        "`precompute`: no Gram matrix is taken from the caller",
    ),
    Reason(
        _DIFFERENT, "test_warm_start_convergence", "assert 2 > 2",
        "moves of all weights at once need two sweeps where the test expects more",
    ),
    Reason(_ABSENT, "descent_paths", "y has 2 columns", "a path of several columns of y"),
    Reason(
        _DIFFERENT, "test_path_unknown_parameter", "unexpected keyword",
        "an unknown setting is a TypeError of other words",
    ),
    Reason(
        _ABSENT, "check_input", "", "`check_input=False`: data are checked, and never changed",
    ),
    Reason(
        _ABSENT, "test_enet_coordinate_descent_raises_convergence", "DID NOT WARN",
        "`coef_` that is set by hand before any fit is no start",
    ),
    # Ridge.
    Reason(
        _DIFFERENT, "test_n_iter", "Arrays are not equal",
        "`n_iter_` of the Gram matrix is 1, as it takes one pass",
    ),
    Reason(
        _ABSENT, "fit_intercept_sparse|large_sparse_matrix", "DID NOT",
        "solvers for sparse X, which is made dense here",
    ),
    Reason(
        _ABSENT, "positive_error_test|interior_point_future|check_solver_option|"
        "dual_random_state|l1_ratio_non_elasticnet|liblinear_multiclass_raises|"
        "callback_support_warning|penalty_l1ratio_incompatible|ill_conditioned_warning|"
        "linalg_warning|lbfgs_solver_error|liblinear_with_large_values", "DID NOT",
        "what scikit-learn's solvers refuse or warn of; they are left out here",
    ),
    Reason(_ABSENT, "", "max_iter=0 is not", "`max_iter=0`"),
    Reason(
        _DIFFERENT, "newton_cholesky_fallback", "assert",
        "iterations of a solver of scikit-learn's, for which ours is used",
    ),
    Reason(_ABSENT, "multilabel", "1d array", "several labels to a row"),
    Reason(
        _DIFFERENT, "weights_greater_than_1d", "did not match",
        "weights of two axes are refused in other words",
    ),
    # Generalised linear models.
    Reason(
        _ABSENT, "tweedie|test_glm_log_regression", "an objective with several minima",
        "pairs of power and link whose objective has several minima",
    ),
    Reason(
        _DIFFERENT, r"test_glm_regression_unpenalized.*\[wide", "Not equal",
        "no penalty, and fewer rows than columns: another of many optima than that of least norm",
    ),
    Reason(
        _DIFFERENT, "test_glm_wrong_y_range", "did not match",
        "a y outside of the domain is named with its row, in other words",
    ),
    # Support vector machines, quantiles and Huber's loss.
    Reason(
        _DIFFERENT, "test_linearsvc_parameters", "DID NOT RAISE",
        "pairs of penalty and loss that liblinear lacks are solved",
    ),
    Reason(
        _ABSENT, "crammer_singer", "", "`multi_class='crammer_singer'`, another problem",
    ),
    Reason(
        _DIFFERENT, "test_linear_svm_convergence_warnings", "DID NOT WARN",
        "Newton converges within the two iterations that are too few for liblinear",
    ),
    Reason(
        _DIFFERENT, "test_huber_and_sgd_same_results", "not almost equal",
        "an update of Huber's loss moves by a step of the rate at most, so y has to be scaled",
    ),
    # Logistic regression.
    Reason(
        _DIFFERENT, "l1_ratio_err_helpful", "did not match|DID NOT",
        "the error about `l1_ratio` is in other words",
    ),
    Reason(
        _DIFFERENT, "test_scores_attribute_layout", "nan",
        "fits by a solver that scikit-learn refuses for l1 are done by ours",
    ),
    Reason(
        _DIFFERENT, r"test_logistic_cv\[", "not almost equal to 6 decimals",
        "LogisticRegressionCV, scikit-learn's own, ends 5e-6 from the optimum",
    ),
    Reason(
        _ABSENT, "test_penalty_none", "DID NOT WARN",
        "`penalty=None` of `LogisticRegression`; there is `C=inf`",
    ),
    Reason(
        _DIFFERENT, "callback_support", r"assert \d+ == ",
        "callbacks have a task for each iteration, and none after the last",
    ),
    Reason(
        _DIFFERENT, "callback_fitted_estimator", "'NoneType' object has no attribute 'coef_'",
        "callbacks get the estimator at the end of an iteration, not at its beginning",
    ),
    # Stochastic gradient descent.
    Reason(
        _ABSENT, "", "unexpected keyword argument '(coef_init|intercept_init)'",
        "`coef_init` and `intercept_init` of `fit`; there is `warm_start`",
    ),
    Reason(
        _ABSENT, "", "learning_rate='optimal'", "`learning_rate='optimal'`; \"auto\" is another",
    ),
    Reason(
        _ABSENT, "", "eta0=.* goes with learning_rate",
        "an `eta0` that the learning rate does not use is refused",
    ),
    Reason(
        _ABSENT, "", "average=.* the model is an average",
        "`average`: the model is an average of all updates always",
    ),
    Reason(
        _ABSENT, "", "has no attribute '(t_|loss_functions|_average.*|standard_.*|average_.*)'",
        "attributes of scikit-learn's updates: `t_`, `loss_functions`",
    ),
    Reason(
        _ABSENT, "test_regression_losses", "loss=.* is not",
        "losses of a number in `SGDClassifier`, but for the squared error",
    ),
    Reason(
        _ABSENT, "test_sgd_proba", "has no attribute 'predict_proba'|no probabilities",
        "probabilities by the modified Huber loss",
    ),
    Reason(
        _DIFFERENT, "averag|test_sgd_l1|large_regularization|test_partial_fit_equal_fit|"
        "validation_set_not_used|intercept_offset|test_set_intercept|provide_coef",
        "not.*equal|Not equal",
        "the order of rows and the average of the updates are others",
    ),
    Reason(
        _DIFFERENT, "test_weights_multiplied", "not almost equal",
        "columns are scaled by moments that count weights of rows, not of classes",
    ),
    Reason(
        _DIFFERENT, "test_balanced_weight", "> 0.96",
        "rows are in random order, and `tol` ends the run earlier",
    ),
    Reason(
        _DIFFERENT, "test_sgd_random_state", "assert",
        "models of two seeds are nearer to each other, as averages of the updates",
    ),
    Reason(
        _ABSENT, "test_validation_mask", "'NoneType' object is not subscriptable",
        "a private class of scikit-learn's that draws validation rows",
    ),
    Reason(
        _DIFFERENT, "error_on_zero_validation_weight", "did not match",
        "validation rows without weight are refused in other words",
    ),
    Reason(
        _DIFFERENT, "test_input_format", "DID NOT RAISE", "several columns of y are learned",
    ),
    Reason(
        _DIFFERENT, "not_enough_sample_for_early_stopping", "DID NOT RAISE",
        "a row is left to learn from, whatever the share of validation",
    ),
    Reason(
        _DIFFERENT, "early_stopping_with_partial_fit|partial_fit_weight_class_balanced",
        "did not match", "a setting that `partial_fit` cannot use is refused in other words",
    ),
    Reason(
        _DIFFERENT, "early_stopping|n_iter_no_change|adaptive|tol_parameter", "assert",
        "epochs end by five without progress of the validation loss, not of the score",
    ),
)  # fmt: skip


def reason_of(outcome: Outcome) -> Reason | None:
    """Return why a test fails; None if that is not known."""
    for reason in REASONS:
        if re.search(reason.test, outcome.test) and re.search(reason.text, outcome.text):
            return reason
    return None
