"""Files that try to run code run nothing; files that hold data are read."""

import argparse
import codecs
import collections
import io
import os
import pathlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from queryseg.checkpoint.errors import CheckpointError, UnsafeCheckpointError
from queryseg.checkpoint.safe_reading import read_checkpoint_file


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write_pth(content: object, path: Path) -> None:
    torch.save(content, path)


def write_legacy_pth(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pkl(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [write_pth, write_legacy_pth, write_pkl])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_a_payload_is_refused_and_never_run(tmp_path: Path, write, suffix: str):
    sentinel, file = tmp_path / "executed", tmp_path / f"weights{suffix}"
    write({"model": {"w": torch.zeros(1).numpy()}, "x": Payload(f"touch {sentinel}")}, file)
    with pytest.raises(UnsafeCheckpointError) as error:
        read_checkpoint_file(str(file))
    assert not sentinel.exists()
    assert str(file) in str(error.value)
    assert "system" in str(error.value)
    assert "nothing was run" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_the_payload_of_these_tests_works_where_nothing_guards(tmp_path: Path):
    sentinel = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(f"touch {sentinel}")))
    assert sentinel.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\neval\n(S'1+1'\ntR.",
        b"c__builtin__\ngetattr\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nfrombuffer\n.",
        b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
        b"cbuiltins\nobject\n.",
        pickle.dumps(pathlib.Path("/x")),
    ],
)
def test_a_pickle_may_only_name_array_constructors(tmp_path: Path, pickled: bytes):
    file = tmp_path / "weights.pkl"
    file.write_bytes(pickled)
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint_file(str(file))


@pytest.mark.parametrize(
    "name", [b"numpy.core.numeric\n_frombuffer", b"_codecs\nencode", b"numpy\nndarray"]
)
@pytest.mark.parametrize("state", [b"}S'mark'\nI1\ns", b"N}S'mark'\nI1\ns\x86"])
def test_a_pickle_cannot_change_what_it_names(tmp_path: Path, name: bytes, state: bytes):
    file = tmp_path / "weights.pkl"
    file.write_bytes(b"c" + name + b"\n" + state + b"b.")
    with pytest.raises(CheckpointError):
        read_checkpoint_file(str(file))
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    assert not any(hasattr(it, "mark") for it in (from_buffer, codecs.encode, np.ndarray))


@pytest.mark.parametrize("write", [write_pth, write_legacy_pth])
def test_what_old_releases_store_beside_tensors_is_read(tmp_path: Path, write):
    file = tmp_path / "release.pth"
    stored = {
        "model": collections.OrderedDict(w=torch.arange(3.0)),
        "args": argparse.Namespace(lr=0.1, output=pathlib.Path("runs/x")),
        "best": np.float64(0.25),
        "count": np.int32(7),
        "curve": np.linspace(0, 1, 5, dtype=np.float32),
        "names": np.array(["a", None], dtype=object),
        "flags": np.array([True, False]),
    }
    write(stored, file)
    read = read_checkpoint_file(str(file))
    assert torch.equal(read["model"]["w"], stored["model"]["w"])
    assert read["args"].lr == 0.1
    assert str(read["args"].output) == "runs/x"
    assert read["best"] == 0.25
    assert read["count"] == 7
    assert read["count"].dtype == np.int32
    assert np.array_equal(read["curve"], stored["curve"])
    assert list(read["names"]) == ["a", None]
    assert list(read["flags"]) == [True, False]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_arrays_is_read_at_every_protocol(tmp_path: Path, protocol: int):
    file = tmp_path / "R-50.pkl"
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "f": np.asfortranarray(np.eye(3))}
    with file.open("wb") as stream:
        pickle.dump({"model": arrays, "n": np.float32(2)}, stream, protocol=protocol)
    read = read_checkpoint_file(str(file))
    assert np.array_equal(read["model"]["w"], arrays["w"])
    assert np.array_equal(read["model"]["f"], arrays["f"])
    assert read["n"] == 2


def test_a_pickle_that_python_2_wrote_is_read(tmp_path: Path):
    # Python 2 spells array bytes as a byte string; the values are 1.0 and 2.0 in float32.
    pickled = (
        b"\x80\x02}q\x01U\x06conv_wq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\n"
        b"ndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02\x85cnumpy\ndtype\nq\x06U\x02f4K\x00"
        b"K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x08\x00\x00\x80?\x00\x00\x00@tbs."
    )
    file = tmp_path / "model_final.pkl"
    file.write_bytes(pickled)
    read = read_checkpoint_file(str(file))
    assert read["conv_w"].dtype == np.float32
    assert read["conv_w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kept", [0, 10, 400])
@pytest.mark.parametrize("write", [write_pth, write_legacy_pth, write_pkl])
def test_a_file_cut_short_says_so(tmp_path: Path, write, kept: int):
    file = tmp_path / "cut.pth"
    write({"w": np.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cut\.pth cannot be read .* fetch it") as error:
        read_checkpoint_file(str(file))
    assert not isinstance(error.value, UnsafeCheckpointError)


def test_a_file_that_is_no_checkpoint_says_so(tmp_path: Path):
    file = tmp_path / "page.pth"
    file.write_text("<html>404 Not Found</html>")
    with pytest.raises(CheckpointError, match=r"page\.pth cannot be read as a checkpoint"):
        read_checkpoint_file(str(file))


def test_a_plain_state_dict_in_a_buffer_written_file_is_read(tmp_path: Path):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2, dtype=torch.bfloat16)}, buffer)
    file = tmp_path / "no_ending"
    file.write_bytes(buffer.getvalue())
    assert read_checkpoint_file(str(file))["w"].dtype == torch.bfloat16
