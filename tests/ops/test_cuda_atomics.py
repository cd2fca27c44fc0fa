"""Groups of lanes add to neighbouring addresses together."""

import ctypes

import pytest
from test_cuda_kernels_emulated import ATOMIC_FLOATS, compiled


@pytest.fixture(scope="module")
def emulated(tmp_path_factory, request) -> ctypes.CDLL:
    return compiled("atomic_share.cpp", tmp_path_factory.mktemp("emulation"), request.param)


@ATOMIC_FLOATS
@pytest.mark.parametrize("group", [4, 8, 32])
@pytest.mark.parametrize("values", [4, 8])
def test_one_addition_of_all_lanes_leaves_no_gaps(emulated, values, group):
    channels = (ctypes.c_int * (values * group))()
    together = emulated.channels_of_group(values, group, channels)
    assert together >= group
    assert list(channels) == list(range(values * group))
