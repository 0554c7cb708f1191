"""Clusters of rows: Ward's agglomeration, then k-means from its centres. Nothing in it is drawn at random."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import linkage

_STEPS = 20  # of k-means: from Ward's clusters it stands still after a few


def cluster(rows: np.ndarray, count: int) -> np.ndarray:
    """Parts rows into clusters of little spread.

    Args:
        rows: shape (rows, features).
        count: How many clusters, each with one row at least.

    Returns:
        The number of each row's cluster, from 0.

    Example:
        >>> from structprune.plan.clustering import cluster
        >>> cluster(np.array([[0.0], [5.0], [0.1], [5.2]]), 2).tolist()
        [0, 1, 0, 1]
    """
    if count >= len(rows):
        return np.arange(len(rows))
    labels = _agglomerated(rows, count)
    for _ in range(_STEPS):
        centres = np.stack([rows[labels == number].mean(axis=0) for number in range(count)])
        gaps = (rows**2).sum(1)[:, None] - 2 * rows @ centres.T + (centres**2).sum(1)
        nearest = gaps.argmin(axis=1)
        if len(np.unique(nearest)) < count or (nearest == labels).all():  # none may be left empty
            break
        labels = nearest
    return _in_order(labels)


def _agglomerated(rows: np.ndarray, count: int) -> np.ndarray:
    """The clusters that Ward's method leaves when so many are left."""
    members = {number: [number] for number in range(len(rows))}
    for step, (left, right, _, _) in enumerate(linkage(rows, "ward")[: len(rows) - count]):
        members[len(rows) + step] = members.pop(int(left)) + members.pop(int(right))
    labels = np.zeros(len(rows), int)
    for number, rows_of_one in enumerate(members.values()):
        labels[rows_of_one] = number
    return labels


def _in_order(labels: np.ndarray) -> np.ndarray:
    """The same clusters, numbered in the order of their first rows."""
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which.ravel()]
