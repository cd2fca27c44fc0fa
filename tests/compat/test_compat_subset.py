"""What the subset leaves out: importable names that raise when they are used."""

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from queryseg.detectron2_seam import COMPAT_ROOT, REAL_INSTALL_HINT


@pytest.fixture(scope="module")
def subset() -> ModuleType:
    """The file that makes the stand-ins, whichever Detectron2 is in use."""
    spec = importlib.util.spec_from_file_location("_subset", COMPAT_ROOT / "detectron2/_subset.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_calling_a_stand_in_names_it_and_the_cure(subset: ModuleType) -> None:
    stand_in = subset.needs_real("detectron2.modeling.FCOS")
    with pytest.raises(subset.NeedsRealDetectron2) as raised:
        stand_in(num_classes=3)
    assert "detectron2.modeling.FCOS needs the real Detectron2" in str(raised.value)
    assert REAL_INSTALL_HINT in str(raised.value)


def test_a_stand_in_can_be_subclassed_and_asked_for_but_not_read(subset: ModuleType) -> None:
    stand_in = subset.needs_real("detectron2.structures.RotatedBoxes")

    class Own(stand_in):
        pass

    assert not isinstance(3, stand_in)
    assert issubclass(Own, stand_in)
    assert not hasattr(stand_in, "__wrapped__")  # introspection must go on working
    with pytest.raises(subset.NeedsRealDetectron2, match=r"RotatedBoxes\.cat needs"):
        _ = stand_in.cat
    with pytest.raises(subset.NeedsRealDetectron2):
        Own()


def test_a_module_offers_only_the_names_it_lists(subset: ModuleType) -> None:
    module_getattr = subset.outside("detectron2.modeling", "FCOS")
    assert module_getattr("FCOS") is module_getattr("FCOS")
    with pytest.raises(AttributeError, match="no attribute 'GCOS'"):
        module_getattr("GCOS")


def test_methods_can_be_left_out_of_a_class(subset: ModuleType) -> None:
    class Trainer:
        def train(self) -> int:
            return 3

    subset.leave_out(Trainer, "test build_model")
    assert Trainer().train() == 3
    with pytest.raises(subset.NeedsRealDetectron2, match=r"Trainer\.test needs"):
        Trainer().test()


def test_the_subset_says_what_it_is_and_names_the_cure_for_missing_modules() -> None:
    script = f"""
import sys
import queryseg
sys.path.insert(0, {str(COMPAT_ROOT)!r})
for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"]:
    del sys.modules[name]
import detectron2
assert detectron2.__version__.endswith("+subset"), detectron2.__version__
from detectron2.config import get_cfg
from detectron2.projects import point_rend
from detectron2.utils.registry import locate
for wrong in (
    "import detectron2.tracking",
    "from detectron2.tracking import BaseTracker",
    "from detectron2.utils import video_visualizer",
    "get_cfg()",
    "point_rend.add_pointrend_config(1)",
):
    try:
        exec(wrong)
    except ImportError as error:
        assert "needs the real Detectron2" in str(error), error
    else:
        raise AssertionError(wrong)
try:
    locate("detectron2.config.NoSuchThing")
except ImportError as error:
    assert "NoSuchThing" in str(error)
print("all said")
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "all said", run.stderr
