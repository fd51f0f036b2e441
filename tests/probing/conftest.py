"""A dataset of every quantity, probed once."""

from __future__ import annotations

import pytest
import xarray as xr

from analysis.probing.probe import probe_inputs
from lightkv import VLM
from tests.probing.models import BATCH, EVERYTHING


@pytest.fixture(scope="package")
def everything(tiny_vlm: VLM) -> xr.Dataset:
    return probe_inputs(tiny_vlm, [BATCH], EVERYTHING)
