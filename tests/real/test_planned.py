"""The plan of the embedded model, against the model."""

from __future__ import annotations

from lape.recording.plan import plan


def test_the_embedded_model_is_planned_by_its_name():
    made = plan("sample", batch_tokens=512)
    assert (made.layers, made.neurons) == (18, 36_864)
    assert round(made.parameters / 1e6) == 268
    assert made.probe is not None
    assert made.speed > 0
