"""Options of the first-order methods and of the curvatures: what is out of range is refused by its name."""

import numpy as np
import pytest

from ocpkit import EMSA, MSA, GradientDescent, ProblemError
from ocpkit.recursion.curvature import Adam, AdaptiveDiagonal, Identity


@pytest.mark.parametrize(
    ("make", "option", "message"),
    [
        (MSA, {"minimization": "exactly"}, "minimization"),
        (MSA, {"relaxation": 0.0}, "relaxation"),
        (MSA, {"relaxation": 1.5}, "relaxation"),
        (MSA, {"learning_rate": 0.0}, "learning_rate"),
        (MSA, {"patience": 0}, "patience"),
        (MSA, {"time_limit": -1.0}, "time_limit"),
        (EMSA, {"penalty": 0.0}, "penalty"),
        (EMSA, {"penalty_factor": 1.0}, "penalty_factor"),
        (EMSA, {"max_iterations": -1}, "max_iterations"),
        (GradientDescent, {"rule": "newton"}, "rule"),
        (GradientDescent, {"learning_rate": 0.0}, "learning_rate"),
        (GradientDescent, {"armijo": 0.0}, "armijo"),
        (GradientDescent, {"gradient_tolerance": 0.0}, "gradient_tolerance"),
        (Identity, {"learning_rate": 0.0}, "learning_rate"),
        (Identity, {"learning_rate": np.inf}, "learning_rate"),
        (Identity, {"learning_rate": 0.1, "momentum": 1.0}, "decay"),
        (AdaptiveDiagonal, {"learning_rate": -1.0}, "learning_rate"),
        (AdaptiveDiagonal, {"learning_rate": 0.1, "decay": 1.0}, "decay"),
        (Adam, {"learning_rate": 0.1, "decays": (0.9, -0.1)}, "decay"),
    ],
)
def test_a_wrong_option_is_refused_by_name(make, option, message):
    with pytest.raises(ProblemError, match=message):
        make(**option)


def test_the_limits_of_the_range_are_allowed():
    for solver in (MSA(relaxation=1.0), EMSA(penalty_factor=1.01), GradientDescent(max_iterations=0)):
        assert solver.max_iterations >= 0
    for curvature in (Identity(1e-300, 0.0), AdaptiveDiagonal(1.0, 0.0), Adam(1.0, (0.0, 0.0))):
        assert curvature.learning_rate > 0
