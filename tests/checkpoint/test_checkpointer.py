"""Loading into a model: what matches, what is said, what is refused; saving that can be cut off."""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from queryseg.checkpoint import Checkpointer, CheckpointError, Layout, open_checkpoint, registry
from queryseg.checkpoint.name_matching import compact


class TinyModel(nn.Module):
    """A backbone, a decoder with a class head of K + 1 rows, and a buffer that needs no file."""

    def __init__(self, num_classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
        self.decoder = nn.ModuleDict(
            {"ffn": nn.Linear(width, 8 * width), "back": nn.Linear(8 * width, width)}
        )
        self.class_embed = nn.Linear(width, num_classes + 1)
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))


def filled(model: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def loaded(model: nn.Module, path: Path | str, **options) -> Checkpointer:
    checkpointer = Checkpointer(model, **options)
    checkpointer.load(path)
    return checkpointer


def test_a_saved_model_comes_back_with_its_companions(tmp_path: Path):
    model = filled(TinyModel(), 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    Checkpointer(model, str(tmp_path), optimizer=optimizer).save("model_0000009", iteration=9)
    fresh, other = TinyModel(), torch.optim.SGD(TinyModel().parameters(), lr=0.1)
    checkpointer = Checkpointer(fresh, str(tmp_path), optimizer=other)
    rest = checkpointer.resume_or_load("", resume=True)
    assert rest == {"iteration": 9}
    assert same(fresh.state_dict(), model.state_dict())
    assert other.param_groups[0]["lr"] == 0.3
    assert checkpointer.last_report is not None
    assert checkpointer.last_report.is_complete
    assert checkpointer.last_report.source == "QuerySeg checkpoint of TinyModel"


def test_class_names_travel_with_the_weights(tmp_path: Path):
    Checkpointer(TinyModel(), str(tmp_path), class_names=("nut", "fig", "date")).save("m")
    contents = open_checkpoint(tmp_path / "m.pth")
    assert contents.class_names == ["nut", "fig", "date"]
    assert contents.extras == {}


def test_plain_detectron2_reads_what_is_saved_here(tmp_path: Path):
    model = filled(TinyModel(), 0.25)
    Checkpointer(model, str(tmp_path)).save("model_final")
    fresh = TinyModel()
    DetectionCheckpointer(fresh).load(str(tmp_path / "model_final.pth"))
    assert same(fresh.state_dict(), model.state_dict())


def test_only_the_class_head_is_reinitialised_and_it_is_said(tmp_path: Path, caplog):
    Checkpointer(filled(TinyModel(80), 0.5), str(tmp_path)).save("coco")
    model = TinyModel(6)
    before = model.class_embed.weight.clone()
    with caplog.at_level(logging.INFO):
        report = loaded(model, tmp_path / "coco.pth").last_report
    assert report.class_head.names == ("class_embed.weight", "class_embed.bias")
    assert (report.class_head.classes_in_file, report.class_head.classes_in_model) == (80, 6)
    assert torch.equal(model.class_embed.weight, before)
    assert bool((model.decoder["ffn"].weight == 0.5).all())
    assert report.share == 1.0
    assert not report.missing
    assert not report.reshaped
    assert "80 classes in the file, 6 in the model: re-initialised class_embed." in caplog.text


def test_a_head_of_another_size_without_class_counts_is_reshaped_not_class_head(tmp_path: Path):
    Checkpointer(filled(TinyModel(80), 0.5), str(tmp_path)).save("coco")
    model = TinyModel(6)
    del model.num_classes
    report = loaded(model, tmp_path / "coco.pth", allow_partial=True).last_report
    assert report.class_head is None
    assert [(r.name, r.in_file, r.in_model) for r in report.reshaped] == [
        ("class_embed.weight", (81, 4), (7, 4)),
        ("class_embed.bias", (81,), (7,)),
    ]
    assert "class_embed.weight is (81, 4) in the file, (7, 4) in the model" in str(report)


def test_a_checkpoint_of_another_model_names_file_guess_and_cure(tmp_path: Path):
    other = nn.ModuleDict({"backbone": TinyModel().backbone, "roi_heads": nn.Linear(2, 2)})
    Checkpointer(other, str(tmp_path)).save("other")
    path = tmp_path / "other.pth"
    with pytest.raises(CheckpointError) as error:
        loaded(TinyModel(), path)
    message = str(error.value)
    assert str(path) in message
    assert "does not fit TinyModel: 7 of 13 entries match" in message
    assert "QuerySeg checkpoint of ModuleDict, with the modules backbone, roi_heads" in message
    assert "Use the config" in message
    report = loaded(TinyModel(), f"{path}?allow_partial=True").last_report
    assert report.unexpected == ("roi_heads.weight", "roi_heads.bias")
    assert "unexpected 2: roi_heads.{bias, weight}" in " ".join(str(report).split())
    assert len(report.missing) == 6


def test_a_file_of_which_nothing_fits_is_an_error_in_any_case(tmp_path: Path):
    torch.save({"x.weight": torch.zeros(2), "y.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"0 of 12 entries match[^?]*$"):
        loaded(TinyModel(), f"{tmp_path / 'x.pth'}?allow_partial=True")


def test_the_limit_is_95_percent_of_entries_and_of_values(tmp_path: Path):
    model = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(99)])
    model.append(nn.Linear(100, 100, bias=False))
    state = model.state_dict()
    torch.save({k: v for k, v in state.items() if k != "99.weight"}, tmp_path / "big_missing.pth")
    torch.save({k: v for k, v in state.items() if int(k.split(".")[0]) > 5}, tmp_path / "few.pth")
    torch.save({k: v for k, v in state.items() if int(k.split(".")[0]) > 4}, tmp_path / "95.pth")
    with pytest.raises(CheckpointError, match=r"99 of 100 entries match \(1\.0 %"):
        loaded(model, tmp_path / "big_missing.pth")
    with pytest.raises(CheckpointError, match=r"94 of 100 entries match \(94\.0 %"):
        loaded(model, tmp_path / "few.pth")
    assert loaded(model, tmp_path / "95.pth").last_report.share == 0.95


def test_many_names_are_summed_up_by_module():
    assert compact([]) == ""
    assert compact(["a.b.w", "c"]) == "a.b.w, c"
    many = [f"body.{i}.{k}.{w}" for i in range(3) for k in range(9) for w in ("weight", "bias")]
    assert compact([*many, "head.x"]) == "body.0.* (18), body.1.* (18), body.2.* (18), head.x.* (1)"
    assert compact([f"m{i}.w" for i in range(20)], limit=2) == "m0.* (1), m1.* (1), ..."
    flat = [f"w{i}" for i in range(9)]
    assert compact(flat) == "{w0, w1, w2, w3, w4, w5, w6, w7, w8}"


def test_wrapped_files_of_other_frameworks_are_unwrapped(tmp_path: Path):
    model = filled(TinyModel(), 2.0)
    wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"meta": {"epoch": 3}, "state_dict": wrapped}, tmp_path / "mm.pth")
    fresh = TinyModel()
    assert loaded(fresh, tmp_path / "mm.pth").last_report.is_complete
    assert same(fresh.state_dict(), model.state_dict())


def test_old_files_may_lack_what_the_config_gives(tmp_path: Path):
    state = TinyModel().state_dict()
    del state["pixel_mean"], state["backbone.1.num_batches_tracked"]
    state["anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    torch.save(state, tmp_path / "old.pth")
    report = loaded(TinyModel(), tmp_path / "old.pth").last_report
    assert report.missing == ()
    assert report.unexpected == ()


def test_a_shared_parameter_is_not_missing_under_its_second_name(tmp_path: Path):
    def tied() -> nn.ModuleDict:
        first = nn.Linear(2, 2)
        return nn.ModuleDict({"first": first, "again": first})

    state = {k: v for k, v in filled(tied(), 3.0).state_dict().items() if k.startswith("first")}
    torch.save(state, tmp_path / "tied.pth")
    model = tied()
    report = loaded(model, tmp_path / "tied.pth").last_report
    assert report.missing == ()
    assert bool((model["again"].weight == 3.0).all())


def test_an_official_layout_is_recognised_by_content(tmp_path: Path, monkeypatch):
    layout = Layout(
        "Tiny official release",
        signature=("head.cls.weight",),
        rules=(("head.cls.", "class_embed."), ("net.", "")),
        ignored=("criterion.",),
    )
    monkeypatch.setattr(registry, "known_layouts", lambda: (layout,))
    source = filled(TinyModel(), 0.75)
    official = layout.convert_back(source.state_dict())
    assert set(official) != set(source.state_dict())
    torch.save({"model": official | {"criterion.w": torch.ones(2)}}, tmp_path / "renamed.bin")
    model = TinyModel()
    report = loaded(model, tmp_path / "renamed.bin").last_report
    assert report.source == "Tiny official release"
    assert report.ignored == ("criterion.w",)
    assert report.is_complete
    assert same(model.state_dict(), source.state_dict())


def test_our_own_file_is_taken_as_it_is_though_it_carries_a_signature(tmp_path: Path, monkeypatch):
    layout = Layout("swap", ("class_embed.weight",), (("class_embed.", "x."), ("", "class_embed.")))
    monkeypatch.setattr(registry, "known_layouts", lambda: (layout,))
    Checkpointer(TinyModel(), str(tmp_path)).save("own")
    assert loaded(TinyModel(), tmp_path / "own.pth").last_report.source.startswith("QuerySeg")


@pytest.mark.parametrize("name", ["none.pth", "folder/none.pth"])
def test_a_missing_file_says_what_is_there(tmp_path: Path, name: str):
    Checkpointer(TinyModel(), str(tmp_path)).save("model_0000099")
    with pytest.raises(FileNotFoundError, match=r"none\.pth does not exist") as error:
        loaded(TinyModel(), tmp_path / name)
    assert ("model_0000099.pth" in str(error.value)) == ("/" not in name)


def test_an_unknown_option_is_refused(tmp_path: Path):
    Checkpointer(TinyModel(), str(tmp_path)).save("m")
    with pytest.raises(CheckpointError, match=r"'\?partial=True' .* \?allow_partial=True"):
        loaded(TinyModel(), f"{tmp_path / 'm.pth'}?partial=True")


def test_a_refused_file_does_not_spoil_the_checkpointer(tmp_path: Path):
    checkpointer = Checkpointer(TinyModel(), str(tmp_path))
    checkpointer.save("good")
    torch.save({"other": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError):
        checkpointer.load(tmp_path / "bad.pth")
    checkpointer.load(tmp_path / "good.pth")
    assert checkpointer.last_report.is_complete


def test_an_empty_path_loads_nothing():
    model = TinyModel()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert Checkpointer(model).load("") == {}
    assert same(model.state_dict(), before)


def test_a_payload_in_a_checkpoint_reaches_the_user_as_one_clear_error(tmp_path: Path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"model": Payload()}))
    torch.save({"model": TinyModel().state_dict(), "extra": Payload()}, tmp_path / "weights.pth")
    for file in ("weights.pkl", "weights.pth"):
        with pytest.raises(CheckpointError, match="nothing was run"):
            loaded(TinyModel(), tmp_path / file)
    assert not (tmp_path / "executed").exists()


def test_numpy_parameters_are_loaded(tmp_path: Path):
    source = filled(TinyModel(), 1.5)
    arrays = {name: value.numpy() for name, value in source.state_dict().items()}
    arrays["class_embed.bias"] = arrays["class_embed.bias"].astype(">f4")
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}))
    model = TinyModel()
    assert loaded(model, tmp_path / "zoo.pkl").last_report.source == "model-zoo file by someone"
    assert same(model.state_dict(), source.state_dict())


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch):
    checkpointer = Checkpointer(filled(TinyModel(), 1.0), str(tmp_path))
    checkpointer.save("model_final", iteration=1)
    old = (tmp_path / "model_final.pth").read_bytes()

    def fill_the_disk(data: object, stream) -> None:
        stream.write(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    for name in ("model_final", "model_0000002"):
        with pytest.raises(OSError, match="No space"):
            checkpointer.save(name, iteration=2)
    assert (tmp_path / "model_final.pth").read_bytes() == old
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_final.pth")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_final.pth"]


KILLED_SAVE = """
import sys, time, torch
from queryseg.checkpoint import Checkpointer
model = torch.nn.Linear(2, 2)
checkpointer = Checkpointer(model, sys.argv[1])
checkpointer.save("model_0000001", iteration=1)
def hang(data, stream):
    stream.write(b"half a file")
    stream.flush()
    print("writing", flush=True)
    time.sleep(60)
torch.save = hang
checkpointer.save("model_0000002", iteration=2)
"""


def test_a_save_that_is_killed_leaves_the_old_checkpoint_as_last(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_SAVE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "model_0000002.pth").exists()
    model = nn.Linear(2, 2)
    checkpointer = Checkpointer(model, str(tmp_path))
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 1}
    checkpointer.save("model_0000003")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000001.pth",
        "model_0000003.pth",
    ]


def test_the_best_checkpoint_is_not_the_one_to_resume_from(tmp_path: Path):
    checkpointer = Checkpointer(TinyModel(), str(tmp_path))
    checkpointer.save("model_0000004")
    checkpointer.save("model_best")
    assert checkpointer.get_checkpoint_file().endswith("model_0000004.pth")


def test_resuming_from_a_file_that_is_gone_says_what_to_do(tmp_path: Path):
    checkpointer = Checkpointer(TinyModel(), str(tmp_path))
    checkpointer.save("model_0000004")
    checkpointer.save("model_0000005")
    (tmp_path / "model_0000005.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"last_checkpoint names.*model_0000004\.pth.*dele"):
        checkpointer.resume_or_load("", resume=True)


def test_inference_needs_all_of_the_model(tmp_path: Path):
    state = TinyModel().state_dict()
    torch.save({k: v for k, v in state.items() if k != "class_embed.bias"}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"does not fill all of TinyModel[\s\S]*class_embed"):
        loaded(TinyModel(), tmp_path / "part.pth", complete=True, allow_partial=True)
    extra = {f"decoder.2.{i}": torch.zeros(1) for i in range(3)}
    torch.save(state | extra, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match="holds 3 entries that TinyModel has no place for"):
        loaded(TinyModel(), tmp_path / "more.pth", complete=True)
    assert loaded(TinyModel(), tmp_path / "more.pth").last_report.is_complete


def test_resuming_with_another_class_count_is_an_error(tmp_path: Path):
    Checkpointer(TinyModel(80), str(tmp_path)).save("model_0000004")
    with pytest.raises(CheckpointError, match=r"was trained on 80 classes, TinyModel has 6\. Set "):
        Checkpointer(TinyModel(6), str(tmp_path)).resume_or_load("", resume=True)


def test_a_process_that_is_not_the_main_one_writes_nothing(tmp_path: Path):
    Checkpointer(TinyModel(), str(tmp_path), save_to_disk=False).save("model_final")
    assert list(tmp_path.iterdir()) == []


def test_the_report_as_data_survives_json(tmp_path: Path):
    Checkpointer(TinyModel(80), str(tmp_path)).save("coco")
    report = loaded(TinyModel(6), tmp_path / "coco.pth").last_report.as_dict()
    assert json.loads(json.dumps(report)) == report
    assert report["class_head"] == [80, 6]
