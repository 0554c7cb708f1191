"""What a comparison calls equal: relative to its own scale, but for rounding; infinities, NaN, integers."""

import pytest
import torch

from structprune.verify import Comparison
from structprune.verify.comparison import own_scale


def compared(a, b, tolerance=1e-9, **options):
    comparison = Comparison(tolerance=tolerance)
    comparison.add([a], [b], 1, **options)
    return comparison


@pytest.mark.parametrize("axis", range(4))
def test_a_large_slice_hides_nothing_beside_it(axis):
    a = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    a.select(axis, 0).mul_(1e12)
    b = a.clone()
    b.select(axis, 1).mul_(1.001)
    assert not compared(a, b).passed
    assert compared(a, a + a * 1e-12).passed


def test_a_scale_is_that_of_the_slice_where_it_is_smallest():
    magnitude = torch.tensor([[1e9, 2.0], [3e9, 1.0], [2.0, 1e-3]])
    assert own_scale(magnitude).tolist() == [[1e9, 2.0], [3e9, 2.0], [2.0, 2.0]]
    assert own_scale(torch.tensor(5.0)) == 5
    assert own_scale(torch.tensor([5.0, 0.0])).tolist() == [5, 0]


def test_what_is_zero_but_for_rounding_is_held_to_the_noise():
    a = torch.randn(2, 8, dtype=torch.float64)
    a[:, 3] = torch.tensor([1e-17, -2e-17])
    b = a.clone()
    b[:, 3] += 5e-17
    noise = torch.full_like(a, 1e-17)
    assert not compared(a, b).passed
    found = compared(a, b, noise=lambda: [noise])
    assert found.passed
    assert found.noise is not None
    b[:, 3] += 1e-9  # as small as that beside the others, and no rounding
    assert not compared(a, b, noise=lambda: [noise]).passed


def test_noise_is_measured_only_where_it_is_needed():
    def never():
        raise AssertionError("measured")

    a = torch.randn(4, 4, dtype=torch.float64)
    assert compared(a, a * (1 + 1e-13), noise=never).passed


def test_nothing_compared_is_not_passed():
    comparison = Comparison(tolerance=1.0)
    assert comparison.state == "not compared"
    assert not comparison.passed
    assert not comparison.failed
    nothing = torch.full((2, 3), torch.inf)
    assert compared(nothing, nothing).state == "not compared"
    assert "no finite value" in compared(nothing, nothing).detail


def test_what_was_compared_in_part_is_not_passed():
    comparison, a = Comparison(tolerance=1.0), torch.ones(2)
    comparison.add([a], [a], 1)
    comparison.skip("it does not run at batch 2")
    comparison.add([a], [a], 4)
    assert comparison.record().state == "not compared"
    assert comparison.record().passed is False
    comparison.fail("worse")
    comparison.skip("no excuse")
    assert (comparison.state, comparison.detail) == ("failed", "worse")


def test_only_a_difference_in_numbers_is_excused():
    a, infinite = torch.ones(2), torch.tensor([1.0, torch.inf])
    found = compared(a, 2 * a)
    assert found.only_numbers
    found.excuse("the runtime's")
    assert found.passed
    assert not compared(a, infinite).only_numbers
    assert not compared(a, torch.ones(3)).only_numbers


def test_infinities_are_equal_where_they_are_the_same():
    a = torch.tensor([[1.0, -torch.inf, 2.0], [torch.inf, 1.0, 3.0]])
    assert compared(a, a.clone()).passed
    assert not compared(a, -a).passed
    b = a.clone()
    b[0, 1] = -1e30
    assert not compared(a, b).passed
    assert not compared(b, a).passed


def test_nan_is_equal_in_the_same_places_if_the_dense_network_has_it():
    a = torch.tensor([1.0, torch.nan, 2.0])
    assert compared(a, a.clone(), nan=lambda: [a]).passed
    assert "NaN" in compared(a, a.clone(), nan=lambda: [a]).detail
    assert not compared(a, a.clone(), nan=lambda: [torch.ones(3)]).passed
    assert not compared(a, torch.tensor([1.0, 5.0, 2.0]), nan=lambda: [a]).passed
    assert not compared(torch.tensor([1.0, 5.0, 2.0]), a, nan=lambda: [a]).passed
    assert not compared(a, torch.tensor([1.1, torch.nan, 2.0]), nan=lambda: [a]).passed


def test_complex_numbers_are_held_by_their_modulus():
    a = torch.complex(torch.tensor([3.0, 1.0]), torch.tensor([1e-20, 2.0]))
    assert compared(a, a + 1e-13j, tolerance=1e-9).passed
    assert not compared(a, a + 1e-3j).passed
    assert not compared(a, a.conj() * 1.0).passed


def test_integers_are_equal_but_for_choices_that_rounding_makes():
    a = torch.arange(10)
    b = a.clone()
    b[3] = 0
    assert not compared(a, b).passed
    assert not compared(a, b, noise=lambda: [torch.zeros(10, dtype=torch.float64)]).passed
    close = torch.zeros(10, dtype=torch.float64)
    close[3] = 1
    found = compared(a, b, noise=lambda: [close])
    assert found.passed
    assert "1 of 10 integers differ" in found.detail
    assert not compared(a > 5, a > 6).passed
    assert compared(a > 5, a > 5).passed
