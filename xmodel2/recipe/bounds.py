"""Bounds that settings share, and how their classes are checked."""

from typing import Annotated

from pydantic import ConfigDict, Field

CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)

MOST = 10**18
"""Above it nothing is counted, and arithmetic in 64 bits or in floats stays possible."""

Positive = Annotated[int, Field(gt=0, le=MOST)]
NotNegative = Annotated[int, Field(ge=0, le=MOST)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
BelowOne = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
