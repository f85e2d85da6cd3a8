"""Losses against torch's own derivatives, and the statements of their docstrings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from ocpkit_nn.layers.losses import CrossEntropy, FunctionLoss, Loss, MaxMahalanobisCenter, MeanSquaredError, by_name

TOLERANCE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def quartic(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a convex loss that is none of the library's."""
    goals = F.one_hot(targets, outputs.shape[1])
    return (outputs - goals).pow(4).sum(1) + outputs.sum(1).square()


def saddle(outputs: Tensor, targets: Tensor) -> Tensor:
    """Curvature −1 along the first output and +1 along the others."""
    return 0.5 * outputs.square().sum(1) - outputs[:, 0].square()


LOSSES = {
    "ce": lambda classes: CrossEntropy(),
    "ce-smooth": lambda classes: CrossEntropy(label_smoothing=0.1),
    "mse": lambda classes: MeanSquaredError(),
    "mmc": lambda classes: MaxMahalanobisCenter(classes, classes),
    "function": lambda classes: FunctionLoss(quartic),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())
few_examples = settings(max_examples=25, deadline=None)


@st.composite
def samples(draw: st.DrawFn, scales: tuple[float, float] = (0.01, 20.0)) -> tuple[Tensor, Tensor]:
    """Draw outputs (B, C) in float64 and classes (B,)."""
    batch, classes = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    outputs = torch.randn(batch, classes, generator=generator, dtype=torch.float64) * draw(st.floats(*scales))
    return outputs, torch.randint(classes, (batch,), generator=generator)


def outer(factors: Tensor) -> Tensor:
    return factors.mT @ factors


@every_loss
@few_examples
@given(case=samples())
def test_derivatives_equal_automatic_differentiation(make: Any, case: tuple[Tensor, Tensor]) -> None:
    outputs, targets = case
    loss: Loss = make(outputs.shape[1])

    def total(x: Tensor) -> Tensor:
        return loss.value(x, targets).sum()

    hessian = torch.func.jacrev(torch.func.jacrev(total))(outputs)
    samplewise = torch.stack([hessian[i, :, i] for i in range(len(outputs))])
    gradient = torch.func.grad(total)(outputs)
    scale = 1.0 + samplewise.abs().max()
    assert_close(loss.gradient(outputs, targets) / scale, gradient / scale, **TOLERANCE)
    assert_close(loss.hessian(outputs, targets) / scale, samplewise / scale, **TOLERANCE)


@every_loss
@few_examples
@given(case=samples())
def test_gauss_newton_factors_and_full_rank_give_the_hessian(make: Any, case: tuple[Tensor, Tensor]) -> None:
    outputs, targets = case
    loss: Loss = make(outputs.shape[1])
    hessian = loss.hessian(outputs, targets)
    scale = 1.0 + hessian.abs().max()
    for factors in (
        loss.factors(outputs, targets, "ggn"),
        loss.factors(outputs, targets, "rank", rank=outputs.shape[1]),
    ):
        assert_close(outer(factors) / scale, hessian / scale, **TOLERANCE)


@every_loss
@few_examples
@given(case=samples(), data=st.data())
def test_rank_factors_leave_the_smallest_eigenvalues(
    make: Any, case: tuple[Tensor, Tensor], data: st.DataObject
) -> None:
    outputs, targets = case
    loss: Loss = make(outputs.shape[1])
    rank = data.draw(st.integers(1, outputs.shape[1]))
    hessian = loss.hessian(outputs, targets)
    rest = hessian - outer(loss.factors(outputs, targets, "rank", rank=rank))
    left_out = torch.linalg.eigvalsh(hessian)[:, : outputs.shape[1] - rank].sum(1)
    scale = 1.0 + hessian.abs().max()
    assert_close(rest.diagonal(dim1=1, dim2=2).sum(1) / scale, left_out / scale, **TOLERANCE)
    assert torch.linalg.eigvalsh(rest).min() > -1e-9 * scale


@every_loss
def test_empirical_factor_is_the_gradient(make: Any) -> None:
    outputs, targets = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    loss: Loss = make(3)
    factor = loss.factors(outputs, targets, "empirical")
    assert_close(factor, loss.gradient(outputs, targets)[:, None, :])


@every_loss
def test_montecarlo_factors_have_the_hessian_as_expectation(make: Any) -> None:
    outputs, targets = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 3, 1])
    loss: Loss = make(4)
    hessian, draws = loss.hessian(outputs, targets), 40_000
    factors = loss.factors(outputs, targets, "montecarlo", torch.Generator().manual_seed(0), rank=draws)
    products = draws * factors.unsqueeze(2) * factors.unsqueeze(3)
    error = products.std(1) / draws**0.5
    assert ((products.mean(1) - hessian).abs() <= 5 * error + 1e-12).all()


def test_montecarlo_draws_follow_the_generator() -> None:
    outputs, targets = torch.randn(50, 4), torch.zeros(50, dtype=torch.int64)
    first, same, other = (
        CrossEntropy().factors(outputs, targets, "montecarlo", torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert first.shape == (50, 1, 4)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_linear_function_has_no_curvature() -> None:
    loss = FunctionLoss(lambda x, y: x.sum(1))
    assert torch.equal(loss.gradient(X, Y), torch.ones(2, 3))
    assert torch.equal(loss.hessian(X, Y), torch.zeros(2, 3, 3))


def test_factors_of_a_saddle_keep_its_positive_part() -> None:
    outputs, targets = torch.randn(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    loss = FunctionLoss(saddle)
    positive = torch.diag(torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)).expand(3, 4, 4)
    assert_close(outer(loss.factors(outputs, targets, "ggn")), positive, **TOLERANCE)
    assert_close(outer(loss.factors(outputs, targets, "rank", rank=4)), positive, **TOLERANCE)
    assert (loss.hessian(outputs, targets)[:, 0, 0] == -1).all()


@few_examples
@given(case=samples(scales=(0.01, 1e4)), smoothing=st.floats(0, 1))
def test_cross_entropy_is_torchs(case: tuple[Tensor, Tensor], smoothing: float) -> None:
    outputs, targets = case
    expected = F.cross_entropy(outputs, targets, reduction="none", label_smoothing=smoothing)
    loss = CrossEntropy(smoothing)
    assert_close(loss.value(outputs, targets), expected, **TOLERANCE)
    for derivative in (loss.gradient, loss.hessian, loss.factors):
        assert torch.isfinite(derivative(outputs, targets)).all()


@few_examples
@given(case=samples())
def test_cross_entropy_written_as_a_function_is_cross_entropy(case: tuple[Tensor, Tensor]) -> None:
    outputs, targets = case
    own = FunctionLoss(lambda x, y: -x.log_softmax(1).gather(1, y[:, None]).squeeze(1))
    for method in ("value", "gradient", "hessian"):
        actual, expected = (getattr(loss, method)(outputs, targets) for loss in (own, CrossEntropy()))
        assert_close(actual, expected, **TOLERANCE)


def test_mean_squared_error_has_the_half_and_sums_outputs() -> None:
    outputs = torch.tensor([[1.0, 2.0, 3.0]])
    assert MeanSquaredError().value(outputs, torch.tensor([1])).item() == 0.5 * (1 + 1 + 9)
    assert MeanSquaredError().value(outputs, torch.tensor([[1.0, 0.0, 0.0]])).item() == 0.5 * (4 + 9)


def test_mean_squared_error_relates_to_torchs_mean_as_documented() -> None:
    outputs, targets = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    mean = MeanSquaredError().value(outputs, targets).mean()
    assert_close(F.mse_loss(outputs, targets), 2 / 3 * mean, **TOLERANCE)


@few_examples
@given(classes=st.integers(2, 20), spare=st.integers(0, 5), squared_norm=st.floats(0.1, 1000))
def test_centers_are_a_regular_simplex(classes: int, spare: int, squared_norm: float) -> None:
    loss = MaxMahalanobisCenter(classes, classes - 1 + spare, squared_norm)
    gram = loss.centers @ loss.centers.T / squared_norm
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64)
    expected.fill_diagonal_(1.0)
    assert_close(gram, expected, **TOLERANCE)


@few_examples
@given(classes=st.integers(2, 12))
def test_centers_are_those_of_the_recursion(classes: int) -> None:
    """Pang et al. 2019: μ_1 = e_1, and each next one uses one axis more; that and the angles leave one solution."""
    centers = MaxMahalanobisCenter(classes, classes, 1.0).centers
    assert torch.equal(centers, centers.tril())
    gram = torch.full((classes - 1, classes - 1), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1.0)
    assert_close(centers[:-1, :-1], torch.linalg.cholesky(gram), **TOLERANCE)
    assert_close(centers.sum(0), torch.zeros(classes, dtype=torch.float64), **TOLERANCE)


@few_examples
@given(case=samples())
def test_center_prediction_is_the_nearest(case: tuple[Tensor, Tensor]) -> None:
    outputs, _ = case
    loss = MaxMahalanobisCenter(outputs.shape[1] + 1, outputs.shape[1])
    assert torch.equal(loss.predict(outputs), torch.cdist(outputs, loss.centers).argmin(1))


def test_prediction_is_the_largest_output() -> None:
    outputs = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]])
    for loss in (CrossEntropy(), MeanSquaredError(), FunctionLoss(quartic)):
        assert loss.predict(outputs).tolist() == [1, 0]


@pytest.mark.parametrize("make", [LOSSES[name] for name in ("ce", "ce-smooth", "mse", "mmc")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_keep_the_outputs_type(make: Any, dtype: torch.dtype) -> None:
    outputs, targets = torch.randn(2, 3, dtype=dtype), torch.tensor([0, 2], dtype=torch.int32)
    loss: Loss = make(3)
    results = [method(outputs, targets) for method in (loss.value, loss.gradient, loss.hessian)]
    results += [loss.factors(outputs, targets, kind) for kind in ("ggn", "empirical", "montecarlo")]
    assert {result.dtype for result in results} == {dtype}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ce", CrossEntropy()),
        ("cross-entropy", CrossEntropy()),
        ("mse", MeanSquaredError()),
        ("mean-squared-error", MeanSquaredError()),
        ("mmc", MaxMahalanobisCenter(4, 4)),
        ("max-mahalanobis-center", MaxMahalanobisCenter(4, 4)),
    ],
)
def test_losses_by_name(name: str, expected: Loss) -> None:
    assert by_name(name, classes=4) == expected


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'cross-entropy'"):
        by_name("crossentropy", classes=4)


X, Y = torch.zeros(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "message"),
    [
        (CrossEntropy(), X[0], Y, r"floats \(B, C\), got torch.float32 \(3,\)"),
        (CrossEntropy(), X.long(), Y, r"floats \(B, C\), got torch.int64"),
        (CrossEntropy(), X, Y[:1], "2 outputs need as many targets"),
        (CrossEntropy(), X, X, r"class indices \(B,\), got torch.float32 \(2, 3\)"),
        (CrossEntropy(), X, torch.tensor([0, 3]), "target 3 of sample 1 is not in 0 … 2"),
        (CrossEntropy(), X, torch.tensor([-1, 0]), "target -1 of sample 0 is not in 0 … 2"),
        (CrossEntropy(), X, torch.tensor([True, False]), "class indices"),
        (MeanSquaredError(), X, torch.zeros(2, 2), r"\(2, 3\) as outputs, got \(2, 2\)"),
        (MeanSquaredError(), X, torch.tensor([0, 3]), "target 3 of sample 1"),
        (MaxMahalanobisCenter(3, 4), X, Y, r"\(B, 4\), got \(2, 3\)"),
        (MaxMahalanobisCenter(2, 3), X, torch.tensor([0, 2]), "target 2 of sample 1 is not in 0 … 1"),
        (FunctionLoss(lambda x, y: x.sum()), X, Y, r"must return \(2,\), got \(\)"),
    ],
)
def test_wrong_samples_are_refused_by_every_method(loss: Loss, outputs: Tensor, targets: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss.value(outputs, targets)
    for method in (loss.gradient, loss.hessian, loss.factors):
        with pytest.raises(ValueError, match=message):
            method(outputs, targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "montecarol"}, "did you mean 'montecarlo'"),
        ({"kind": "rank"}, "needs a rank in 1 … 3, got None"),
        ({"kind": "rank", "rank": 4}, "needs a rank in 1 … 3, got 4"),
        ({"kind": "montecarlo", "rank": 0}, "at least one draw"),
        ({"kind": "ggn", "rank": 2}, "leave rank out"),
    ],
)
def test_wrong_factor_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrossEntropy().factors(X, Y, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(1.5), r"in \[0, 1\], got 1.5"),
        (lambda: MaxMahalanobisCenter(5, 3), "dimension >= classes - 1, got 5 and 3"),
        (lambda: MaxMahalanobisCenter(1, 3), "classes >= 2"),
        (lambda: MaxMahalanobisCenter(3, 3, 0.0), "squared_norm must be positive, got 0.0"),
    ],
)
def test_wrong_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
