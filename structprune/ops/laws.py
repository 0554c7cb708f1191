"""How a number of the recorded program follows the sizes of tensors.

A *term* is a number, the size of an axis (`At`), or (function, left, right) of terms. A term is taken for a number only
if it gives what was recorded at every size that was tried, and in the slim network what the channel algebra asks for.
Where the model's code worked the number out from sizes, its own expression is tried first; where that is not known (it
came through code that makes plain numbers of it), a few common forms are.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class At(NamedTuple):
    """The size of axis `dim` of what the node of that name in the traced graph makes."""

    node: str
    dim: int


def root(number: int, divisor: int) -> int:
    """The whole part of the square root of a number over `divisor`: the side of a square grid of tokens."""
    return math.isqrt(max(0, number // divisor))


def power(number: float, exponent: float) -> Any:
    """A small power; a stored program may hold any numbers. Raises ValueError for an exponent over 8."""
    if not -8 <= exponent <= 8:
        raise ValueError(f"the exponent {exponent} is not between -8 and 8")
    return number**exponent


Term = Any
Look = Callable[[At], int]


def result(term: Term, look: Look) -> Any:
    """What a term comes to where `look` gives the size of an axis."""
    if isinstance(term, At):
        return look(term)
    if isinstance(term, tuple):
        function, left, right = term
        return function(result(left, look), result(right, look))
    return term


def places(term: Term) -> list[At]:
    """The axes in a term."""
    if isinstance(term, At):
        return [term]
    return [*places(term[1]), *places(term[2])] if isinstance(term, tuple) else []


class Wanted(NamedTuple):
    """A number: as recorded, first at the traced sizes, then in each trial; and in the slim network at the traced."""

    recorded: tuple[Any, ...]
    slim: Any


class Known(NamedTuple):
    """The sizes that terms are made of: for each axis, what it is at every recorded size, and in the slim network."""

    recorded: Callable[[At], tuple[int, ...]]
    slim: Look

    def fits(self, term: Term, goal: Wanted, slim_term: Term = None) -> bool:
        """Whether a term gives what is wanted; `slim_term` is the form for slim widths, where that is another."""
        try:
            sizes = {at: self.recorded(at) for at in places(term)}
            for i, number in enumerate(goal.recorded):
                now = {at: recorded[i] for at, recorded in sizes.items()}
                if result(term, now.__getitem__) != number:
                    return False
            return result(term if slim_term is None else slim_term, self.slim) == goal.slim
        except (KeyError, IndexError, ZeroDivisionError, OverflowError, TypeError, ValueError):
            return False


def solve(goal: Wanted, own: Term, near: Sequence[At], known: Known) -> Term | None:
    """A term for a number that changes, or None. `own` is the model's own expression (None if lost), `near` are the
    axes that it may follow, the likeliest first."""
    if own is not None:
        for slim_term in (own, *_scaled(own, goal.slim, result(own, known.slim))):
            if known.fits(own, goal, slim_term):
                return slim_term
    moving = [at for at in near if len(set(known.recorded(at))) > 1]
    for term in moving:
        if known.fits(term, goal):
            return term
    for term, slim_term in _forms(goal, moving, known):
        if known.fits(term, goal, slim_term):
            return slim_term
    return None


def solve_real(recorded: Sequence[float], near: Sequence[At], known: Known) -> Term | None:
    """A term for a number that is not whole: something times, or over, a size or its root. None if none fits."""
    for at in near:
        sizes = known.recorded(at)
        if len(set(sizes)) < 3 or known.slim(at) != sizes[0] or not all(sizes):
            continue
        for exponent in (1, -1, 0.5, -0.5, 2, -2):
            factor = recorded[0] / sizes[0] ** exponent
            if all(math.isclose(n, factor * s**exponent, rel_tol=1e-12) for n, s in zip(recorded, sizes, strict=True)):
                return (operator.mul, (operator.pow, at, exponent), factor)
    return None


def _scaled(term: Term, slim: int, now: int) -> Iterator[Term]:
    """A term times or over a whole number, such that it comes to `slim` where it comes to `now`."""
    if now and slim % now == 0:
        yield (operator.mul, term, slim // now)
    elif slim and now % slim == 0:
        yield (operator.floordiv, term, now // slim)


def _forms(goal: Wanted, moving: list[At], known: Known) -> Iterator[tuple[Term, Term]]:
    """Terms that may be the number, each as recorded and with slim widths."""
    first = goal.recorded[0]
    for at in moving:
        for dense in _scaled(at, first, known.recorded(at)[0]):
            yield from ((dense, slim) for slim in _scaled(at, goal.slim, known.slim(at)))
    for i, one in enumerate(moving):
        for two in moving[i:]:
            product = (operator.mul, one, two)
            for dense in _scaled(product, first, known.recorded(one)[0] * known.recorded(two)[0]):
                yield from ((dense, slim) for slim in _scaled(product, goal.slim, result(product, known.slim)))
    if goal.slim != first:
        return  # it follows widths too, of which only one value is known
    for at in moving:
        lines = [t for t in _lines(at, known.recorded(at), goal.recorded) if known.fits(t, goal)]
        if lines and _alike(lines, max(known.recorded(at))):
            yield lines[0], lines[0]


def _alike(terms: list[Term], most: int) -> bool:
    """Whether terms in one axis, which agree at the recorded sizes, agree at all others up to twice the largest."""
    axis = places(terms[0])[0]
    sizes = [{axis: n}.__getitem__ for n in range(1, 2 * most + 64)]
    values = [[result(term, size) for size in sizes] for term in terms]
    return all(other == values[0] for other in values)


def _lines(at: At, sizes: Sequence[int], numbers: Sequence[int]) -> Iterator[Term]:
    """(a · size + b) // c through all points, of which there must be three; what is missing to a multiple; a root."""
    points = sorted(set(zip(sizes, numbers, strict=True)))
    if len({size for size, _ in points}) < 3:
        return
    (x0, y0), (x1, y1) = points[0], points[-1]
    if (y1 - y0) % (x1 - x0) == 0:
        a = (y1 - y0) // (x1 - x0)
        scaled = at if a == 1 else (operator.mul, at, a)
        yield (operator.add, scaled, y0 - a * x0)
    for c in (2, 4, 8, 16, 32, 64, 3, 5, 6, 7, 14):
        for a in (1, 2, 3, 5, 7):
            scaled = at if a == 1 else (operator.mul, at, a)
            for b in (0, c - 1, c // 2, -1):
                yield (operator.floordiv, (operator.add, scaled, b) if b else scaled, c)
        up = (operator.mod, (operator.mul, at, -1), c)
        yield up
        yield (operator.add, at, up)
    for c in (1, 2, 3, 4):
        yield (root, at, c)
