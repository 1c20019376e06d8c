"""What overflowed is refused, and where it first did is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lape.errors import ModelError
from lape.model.numerics import check_finite

numbers = st.floats(width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf")])


@given(st.lists(numbers, min_size=1, max_size=12), st.booleans())
def test_only_finite_numbers_pass_and_the_first_other_is_said(values, array):
    x = np.array(values) if array else torch.tensor(values)
    wrong = [k for k, one in enumerate(values, 1) if one != one or abs(one) == float("inf")]
    if not wrong:
        check_finite(x, "The loss", "line")
        return
    with pytest.raises(ModelError, match=rf"^The loss has values .* \(first in line {wrong[0]}\)\. .*dtype='bfloat16'"):
        check_finite(x, "The loss", "line")
    with pytest.raises(ModelError, match=r"^The loss has values that are infinite or not numbers\. Load.*another copy"):
        check_finite(x, "The loss")


def test_any_shape_and_dtype_will_do():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        x = torch.zeros(2, 3, 4, dtype=dtype)
        check_finite(x, "x")
        x[1, 2, 3] = torch.inf
        with pytest.raises(ModelError):
            check_finite(x, "x")
