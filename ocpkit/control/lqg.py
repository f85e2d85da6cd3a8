"""Cost of not knowing the state, where the noise depends on controls and states (Todorov 2005).

The controls are u = ū + L (x̂ − x̄) on the estimate of a filter with gains K_t, whose error is e = x − x̂. Then the cost
to go is ½ xᵀ V_xx x + ½ eᵀ G e and constants. With W = V_xx' + M'ᵀ G' M' in the place of V_xx' where noise enters Q,
V_xx and L are those of the recursion for the state, and

    G_T = 0,      G = Lᵀ Q_uu L + f_xᵀ M'ᵀ G' M' f_x,      M = I − K H:

an error is paid for by the control that it causes, and it lives on as far as the filter leaves it. So noise that grows
with the control is paid for twice: it moves the state, and the estimate away from it. In turn the gains K depend on L,
since strong controls make more noise. `ilqg` alternates the two. With additive noise W does not matter for L, and K
does not depend on L: the separation principle.

Source: Todorov, "Stochastic optimal control and estimation methods adapted to the noise characteristics of the
sensorimotor system", Neural Computation 17 (2005); there for filters that predict, here for those that update first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.control.estimator import Filtering
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.problem.problem import Problem
from ocpkit.recursion.bellman import q_expansion
from ocpkit.recursion.value import Value
from ocpkit.solution.solution import Solution
from ocpkit.solution.trajectory import Trajectory


@dataclass(frozen=True)
class EstimationCost:
    """The cost of not knowing the state.

    Attributes
    ----------
    hessians
        M'ᵀ G' M' at x_1 … x_T, (n, n) each: what W has beside V_xx'.
    cost
        ½ tr V_xx P_0 + ½ tr G_0 P + ½ Σ tr G K D Dᵀ Kᵀ [cost], which J has beside that of the state's policy.
    """

    hessians: list[Array]
    cost: float


def estimation_cost(
    problem: Problem, solution: Solution, filtering: Filtering, *, second_order: bool
) -> EstimationCost:
    """Sweep G backward along a solution with feedback gains.

    Parameters
    ----------
    problem
        The problem that was solved, its noise priced at W (see `ocpkit.control.noise.ExpectedCost`).
    solution
        Its solution.
    filtering
        The filter along it.
    second_order
        Whether Q_uu holds V_x·f_uu.
    """
    along = Trajectory(solution.states, solution.controls, solution.cost)
    stages, _ = NumpyEngine(problem).expand(along, second_order=second_order)
    V, L = solution.value_hessians, solution.feedback_gains
    G, hessians, cost = np.zeros_like(V[-1]), list[Array](), 0.0
    for t in reversed(range(len(stages))):
        M = filtering.kept[t + 1]
        cost += float(np.sum(G * (filtering.updated[t + 1] - M @ filtering.predicted[t + 1] @ M.T))) / 2
        hessians.insert(0, M.T @ G @ M)
        Q = q_expansion(stages[t], Value(solution.value_gradients[t + 1], V[t + 1]))
        G = L[t].T @ Q.uu @ L[t] + stages[t].fx.T @ hessians[0] @ stages[t].fx
    at_start = float(np.sum(V[0] * filtering.predicted[0]) + np.sum(G * filtering.updated[0])) / 2
    return EstimationCost(hessians, cost + at_start)
