"""The digits job against scikit-learn's own grid search over the same points."""

from __future__ import annotations

import numpy as np
import pytest

datasets = pytest.importorskip("sklearn.datasets")
model_selection = pytest.importorskip("sklearn.model_selection")
svm = pytest.importorskip("sklearn.svm")

FOLDS = 4


def test_scores_are_those_of_grid_search(run_farm):
    points = run_farm("digits.py", "C=0.1,1,10", "gamma=logspace(-4,-2,3)", f"folds={FOLDS}")
    search = model_selection.GridSearchCV(
        svm.SVC(),
        {"C": np.unique(points.C), "gamma": np.unique(points.gamma)},
        cv=model_selection.StratifiedKFold(FOLDS),
    ).fit(*datasets.load_digits(return_X_y=True))

    wanted = search.cv_results_  # in the order of the farm: C outside, gamma inside
    np.testing.assert_array_equal(points.C, wanted["param_C"].astype(float))
    np.testing.assert_array_equal(points.gamma, wanted["param_gamma"].astype(float))
    folds = np.stack([wanted[f"split{k}_test_score"] for k in range(FOLDS)], axis=1)
    np.testing.assert_allclose(points.fold_scores, folds, rtol=0, atol=1e-12)
    np.testing.assert_allclose(points.mean_score, wanted["mean_test_score"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(points.std_score, wanted["std_test_score"], rtol=0, atol=1e-12)
