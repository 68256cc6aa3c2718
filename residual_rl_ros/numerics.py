# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Types of arrays, and arithmetic on the few numbers of a control step."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import shown

Array = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
FLOAT32_MAX = float(np.finfo(np.float32).max)
"""The replay keeps float32, in which anything larger is infinite."""


def clamp(values: Array, lower: Array | float, upper: Array | float) -> Array:
    """Return values between limits; `np.clip` takes three times as long for a single command."""
    inside: Array = np.minimum(np.maximum(values, lower), upper)
    return inside


def within(values: Array, limit: float) -> bool:
    """Return whether no value of a vector is larger, nor NaN.

    Args:
        values: shape (n,).
        limit: largest absolute value.
    """
    # If the sum of the squares is small enough, so is each; it costs a fifth of looking at each.
    return bool(values.dot(values) < limit * limit or (np.abs(values) <= limit).all())


def all_finite(values: Array) -> bool:
    """Return whether all values of a vector, shape (n,), are finite."""
    return within(values, sys.float_info.max)


def is_one_hot(values: npt.NDArray[Any]) -> bool:
    """Return whether each row is 1 in one place and 0 elsewhere, shape (..., m)."""
    return bool(((values == 0.0) | (values == 1.0)).all() and (values.sum(-1) == 1.0).all())


def scalar(value: Any) -> float:
    """Return one real number, given as Python's, numpy's or an array of one.

    Raises:
        ValueError: it is not one number, or complex.
    """
    if isinstance(value, float):
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in 'biuf':
        raise ValueError('expected one number')
    return float(array.item())


def flag(value: Any) -> bool:
    """Return a truth value, also one that is written as 0 or 1.

    Raises:
        ValueError: it is none; text and numbers such as 0.5 or NaN are not rounded to one.
    """
    if isinstance(value, bool):
        return value
    number = scalar(value)
    if number not in (0.0, 1.0):
        raise ValueError('expected true or false')
    return number == 1.0


def as_number(text: str) -> float:
    """Return the number that a text says, NaN if it says none."""
    try:
        return float(text)
    except ValueError:
        return np.nan


def integer(value: Any) -> int:
    """Return a whole number as int.

    Raises:
        ValueError: the value is a boolean, no number or not whole; nothing is truncated.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError(f'{shown(value)} is not a whole number')
    return int(value)
