"""Handwritten digits told apart by a support vector machine: a search over its two parameters.

hpckit run digits "C=logspace(-1,2,4)" "gamma=logspace(-5,-2,4)"
"""

from __future__ import annotations

from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import SVC

from hpckit import farm


@farm(
    cpus_per_task=1,
    mem="1G",
    walltime="10m",
    attrs={
        "C": {"units": "1", "long_name": "penalty of a margin violation"},
        "gamma": {"units": "1", "long_name": "inverse width of the Gaussian kernel"},
        "mean_score": {"units": "1", "long_name": "accuracy, mean over the folds"},
        "std_score": {"units": "1", "long_name": "accuracy, standard deviation over the folds"},
        "fold_scores": {"units": "1", "long_name": "accuracy on each fold"},
    },
)
def digits(C: float = 1.0, gamma: float = 0.001, folds: int = 5):
    """Cross-validate on the 1797 images of 8 x 8 pixels from UCI that scikit-learn ships."""
    images, labels = load_digits(return_X_y=True)
    model = SVC(C=C, gamma=gamma)
    scores = cross_val_score(model, images, labels, cv=StratifiedKFold(folds))
    return {"mean_score": scores.mean(), "std_score": scores.std(), "fold_scores": scores}
