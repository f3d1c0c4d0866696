"""Doses: curves whose shape is known, and where they stop."""

import numpy as np
import pytest

from sae_genomics.causal.dose import Response, curve

DOSES = np.array([-2.0, -1, 0, 0.5, 1, 1.5, 2, 4, 8])


def responder(own, off_target=lambda dose: 0.0, asked=None):
    def respond(doses):
        if asked is not None:
            asked.extend(doses)
        return [Response(own(dose), 0.1 * own(dose), off_target(dose)) for dose in doses]

    return respond


def test_a_straight_line_is_monotone_and_does_not_saturate():
    found = curve(DOSES, responder(lambda dose: 3 * (dose - 1)), 1.0)
    assert found.doses.tolist() == DOSES.tolist()
    assert found.monotonicity == pytest.approx(1)
    assert found.slope == pytest.approx(2.7)
    assert found.saturation == pytest.approx(1)
    assert np.isnan(found.stopped_side(above=True))
    assert np.isnan(found.stopped_side(above=False))
    assert found.own[found.doses == 1] == 0


def test_a_curve_that_bends_saturates():
    found = curve(DOSES, responder(lambda dose: np.tanh(dose - 1)), 1.0)
    assert found.monotonicity == pytest.approx(1, abs=0.02)
    assert found.saturation < 0.2
    assert curve(DOSES, responder(lambda dose: -(dose - 1.0)), 1.0).monotonicity == pytest.approx(-1)


def test_no_dose_beyond_the_bound_is_tried():
    asked = []
    found = curve(DOSES, responder(lambda dose: dose - 1, lambda dose: abs(dose - 1), asked), 1.2)
    assert found.doses.tolist() == [-1, 0, 0.5, 1, 1.5, 2, 4]
    assert found.doses[found.stopped].tolist() == [-1, 4]
    assert (found.stopped_side(above=True), found.stopped_side(above=False)) == (4, -1)
    assert 8 not in asked
    assert -2 not in asked
    assert 1 not in asked


def test_a_flat_curve_has_no_shape():
    found = curve(DOSES, responder(lambda dose: 0.0), 1.0)
    assert np.isnan(found.monotonicity)
    assert np.isnan(found.saturation)
    assert found.slope == 0


def test_a_curve_stopped_at_once_on_one_side():
    found = curve(DOSES, responder(lambda dose: dose - 1, lambda dose: 9.0 if dose > 1 else 0.0), 1.0)
    assert found.doses.max() == 1.5
    assert found.doses.min() == -2
    assert found.slope == pytest.approx(0.9)
