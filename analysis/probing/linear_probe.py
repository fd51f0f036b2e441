"""Linear probes: what a linear reader finds in states, cross-validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightkv.errors import InvalidValueError

# Of the states' principal components: more would let the probe memorise the samples.
_MOST_COMPONENTS = 32


@dataclass(frozen=True)
class Decodability:
    """How well a label is read from states.

    Attributes:
        samples: (n,) which samples were predicted: those of labels that are common enough.
        correct: (n,) bool, held-out predictions that were right.
        chance: Accuracy of always saying the commonest label.
        information: H(label) minus the held-out cross-entropy, in nats: what a linear reader has
            learnt about the label, a lower bound of the mutual information up to sampling error;
            negative for a probe that has learnt nothing.
    """

    samples: np.ndarray[tuple[int], np.dtype[np.int64]]
    correct: np.ndarray[tuple[int], np.dtype[np.bool_]]
    chance: float
    information: float

    @property
    def accuracy(self) -> float:
        """Share of held-out predictions that were right."""
        return float(self.correct.mean())


def decodability(
    states: Any, labels: Sequence[Any], *, folds: int = 4, seed: int = 0
) -> Decodability:
    """Logistic regression on standardised principal components, stratified cross-validation.

    Labels with fewer samples than ``folds`` are left out: no fold could both learn and test them.

    Args:
        states: (n, d).
        labels: n labels.
        folds: Parts of the cross-validation.
        seed: Of the split.

    Raises:
        InvalidValueError: If states and labels differ in number, or fewer than two labels have
            ``folds`` samples.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, names = np.asarray(states, float), np.asarray(labels)
    if len(features) != len(names):
        raise InvalidValueError("labels", len(names), f"as many as samples, {len(features)}")
    known, count = np.unique(names, return_counts=True)
    enough = known[count >= folds]
    if len(enough) < 2:
        raise InvalidValueError(
            "samples", len(names), f"enough for two labels with {folds} samples (one per fold) each"
        )
    usable = np.isin(names, enough)
    features, codes = features[usable], np.searchsorted(enough, names[usable])
    training = len(codes) - -(-len(codes) // folds)
    components = min(_MOST_COMPONENTS, features.shape[1], training // 2)
    probe = make_pipeline(
        PCA(components, svd_solver="full"),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=500),
    )
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    shares = cross_val_predict(probe, features, codes, cv=split, method="predict_proba")
    prior = np.bincount(codes) / len(codes)
    surprise = -np.log(np.clip(shares[np.arange(len(codes)), codes], 1e-12, 1)).mean()
    entropy = -(prior * np.log(prior)).sum()
    return Decodability(
        np.flatnonzero(usable),
        shares.argmax(1) == codes,
        float(prior.max()),
        float(entropy - surprise),
    )
