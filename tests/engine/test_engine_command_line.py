"""`train_net.py`: training, resuming, evaluating, own data, and one clear error per mistake."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig
from PIL import Image
from tiny_training import TinyModel, tiny_config

from queryseg.checkpoint import Checkpointer
from queryseg.engine import LazyTrainer, load_config, train_main
from queryseg.engine.command_line import build_parser, read_config

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    file = tmp_path / "tiny.yaml"
    LazyConfig.save(tiny_config(tmp_path / "out"), str(file))
    return str(file)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on the error stream."""
    with pytest.raises(SystemExit) as stop:
        train_main(argv)
    message = capsys.readouterr().err.strip()
    if stop.value.code == 2:
        assert message.startswith("error: ")
        assert len(message.splitlines()) == 1
        return message
    return str(stop.value.code)


def test_train_net_runs_in_a_fresh_process_and_says_what_it_did(
    tmp_path: Path, config_file: str
) -> None:
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "train_net.py"), "--config-file", config_file],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    for words in ("iter 6/6", "ETA 0:00:00", "results.json", "| segm   |", "model_final.pth"):
        assert words in result.stdout, words
    assert (tmp_path / "out" / "results.json").is_file()


def test_train_net_imports_nothing_before_queryseg() -> None:
    lines = (REPOSITORY / "train_net.py").read_text().splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert imports == ["from queryseg.engine import train_main"]


def test_a_run_leaves_its_config_log_and_results_and_can_be_evaluated(
    tmp_path: Path, config_file: str
) -> None:
    train_main(["--config-file", config_file, "train.max_iter=4"])
    out = tmp_path / "out"
    trained = json.loads((out / "results.json").read_text())
    assert "iter 4/4" in (out / "log.txt").read_text()
    saved = str(out / "config.yaml")
    assert LazyConfig.load(saved).train.max_iter == 4
    (out / "results.json").unlink()
    train_main(["--config-file", saved, "--eval-only"])  # takes the last checkpoint
    assert json.loads((out / "results.json").read_text()) == trained
    other = [f"train.init_checkpoint={out}/model_final.pth", f"train.output_dir={tmp_path}/other"]
    train_main(["--config-file", saved, "--eval-only", *other])
    assert json.loads((tmp_path / "other" / "results.json").read_text()) == trained


def test_evaluation_takes_what_a_run_trained_before_what_it_started_from(
    tmp_path: Path, config_file: str
) -> None:
    Checkpointer(TinyModel(), str(tmp_path)).save("start")
    config = load_config(config_file)
    config.train.init_checkpoint = f"{tmp_path}/start.pth"
    LazyConfig.save(config, str(tmp_path / "tuned.yaml"))

    def evaluated(*overrides: str) -> str:
        words = ["--config-file", str(tmp_path / "tuned.yaml"), "--eval-only", *overrides]
        return read_config(build_parser().parse_intermixed_args(words))[0].train.init_checkpoint

    assert evaluated() == f"{tmp_path}/start.pth", "nothing is trained yet"
    Checkpointer(TinyModel(), str(tmp_path / "out")).save("model_0000003")
    assert evaluated() == f"{tmp_path}/out/model_0000003.pth"
    assert evaluated("train.init_checkpoint=other.pth") == "other.pth"
    assert evaluated("train.init_checkpoint=") == f"{tmp_path}/out/model_0000003.pth"


def test_resume_goes_on_and_flags_may_stand_after_overrides(
    tmp_path: Path, config_file: str
) -> None:
    train_main(["--config-file", config_file, "train.max_iter=3"])
    train_main(["train.max_iter=5", "--resume", "--config-file", config_file])
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "going on with iteration 3" in log
    assert "iter 5/5" in log


def test_batch_size_rescales_and_an_override_wins_over_it(tmp_path: Path, config_file: str) -> None:
    argv = ["--config-file", config_file, "--batch-size", "2", "optimizer.lr=0.5"]
    train_main(argv)
    saved = LazyConfig.load(str(tmp_path / "out" / "config.yaml"))
    assert saved.dataloader.train.total_batch_size == saved.train.total_batch_size == 2
    assert saved.train.max_iter == 12
    assert saved.optimizer.lr == 0.5
    assert "written for batches" not in (tmp_path / "out" / "log.txt").read_text()


def test_a_batch_that_is_only_overridden_warns(tmp_path: Path, config_file: str) -> None:
    train_main(["--config-file", config_file, "train.total_batch_size=2"])
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "written for batches of 4 images and this run uses 2" in log


class LabelMapper:
    """Features and label from a COCO record."""

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        label = record["annotations"][0]["category_id"]
        return {**record, "image": torch.full((6,), float(label)), "label": label}


def write_own_data(folder: Path) -> list[str]:
    """Two photos of two classes with unusual ids; returns the four flags."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 16, "height": 12} for n in (3, 9)]
    square = [[2, 2, 8, 2, 8, 8, 2, 8]]
    annotations = [
        {
            "id": n,
            "image_id": image["id"],
            "category_id": category,
            "bbox": [2, 2, 6, 6],
            "area": 36,
            "iscrowd": 0,
            "segmentation": square,
        }
        for n, (image, category) in enumerate(zip(images, (7, 40)), start=1)
    ]
    categories = [{"id": 7, "name": "bolt"}, {"id": 40, "name": "nut"}]
    for image in images:
        Image.new("RGB", (16, 12)).save(folder / image["file_name"])
    file = folder / "own.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return [
        *("--train-json", str(file), "--train-images", str(folder)),
        *("--val-json", str(file), "--val-images", str(folder)),
    ]


@pytest.fixture
def own_config(tmp_path: Path) -> str:
    cfg = tiny_config(tmp_path / "out", total_batch_size=2, max_iter=3)
    for loader in (cfg.dataloader.train, cfg.dataloader.test):
        loader.dataset = {
            "_target_": "queryseg.data.registration.get_dataset_dicts",
            "names": "coco_2017_train",
        }
        loader.mapper = {"_target_": f"{__name__}.LabelMapper"}
    file = tmp_path / "own.yaml"
    LazyConfig.save(cfg, str(file))
    return str(file)


def test_own_data_set_the_class_count_and_replace_only_the_class_head(
    tmp_path: Path, own_config: str
) -> None:
    pretrained = TinyModel(num_classes=3)
    with torch.no_grad():
        pretrained.backbone.weight.fill_(0.25)
    Checkpointer(pretrained, str(tmp_path)).save("pretrained")
    flags = write_own_data(tmp_path)
    changes = [f"train.init_checkpoint={tmp_path}/pretrained.pth", "optimizer.lr=0.0"]
    train_main(["--config-file", own_config, *flags, *changes])

    out = tmp_path / "out"
    saved = LazyConfig.load(str(out / "config.yaml"))
    assert saved.model.num_classes == 2
    names = saved.dataloader.train.dataset.names, saved.dataloader.evaluator.dataset_name
    assert all(name.startswith("own_") for name in names)
    log = (out / "log.txt").read_text()
    assert "2 classes: bolt, nut" in log
    assert "3 classes in the file, 2 in the model: re-initialised class_embed" in log
    model = torch.load(out / "model_final.pth", weights_only=True)["model"]
    assert model["class_embed.weight"].shape == (2, 8)
    torch.testing.assert_close(model["backbone.weight"], pretrained.backbone.weight.detach())


def test_own_data_need_all_flags_existing_files_and_one_class_count(
    tmp_path: Path, own_config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = write_own_data(tmp_path)
    base = ["--config-file", own_config]
    assert "--val-json, --val-images is missing" in refused(capsys, *base, *flags[:4])
    wrong_json = [*flags[:1], str(tmp_path / "absent.json"), *flags[2:]]
    assert "absent.json" in refused(capsys, *base, *wrong_json)
    wrong_folder = [*flags[:3], str(tmp_path / "nowhere"), *flags[4:]]
    assert "nowhere" in refused(capsys, *base, *wrong_folder)
    second_count = refused(capsys, *base, *flags, "+dataloader.extra={num_classes: 3}")
    assert "'dataloader.extra.num_classes' is 3 but the data have 2 classes" in second_count
    no_count = refused(capsys, *base, *flags, "model.num_classes=null")
    assert "own data need 'model.num_classes'" in no_count


def test_mistakes_on_the_command_line_give_one_line_before_anything_is_built(
    tmp_path: Path, config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--config-file", config_file]
    assert "no config file given" in refused(capsys)
    assert "does not exist" in refused(capsys, "--config-file", "no/such.py")
    assert "cannot be trained" in refused(capsys, "--config-file", "common/train.py")
    assert "did you mean train.max_iter" in refused(capsys, *base, "train.max_itr=3")
    assert "use auto, cpu or cuda" in refused(capsys, *base, "train.device=gpu")
    assert "at least 1: got 0" in refused(capsys, *base, "--batch-size", "0")
    assert "set train.init_checkpoint=FILE" in refused(capsys, *base, "--eval-only")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (lambda content: content["annotations"].clear(), "own.json) has no usable annotations"),
        (lambda content: content["images"][0].update(file_name="gone.png"), "gone.png: no such"),
    ],
)
def test_validation_data_that_cannot_be_used_are_an_error_before_the_first_step(
    tmp_path: Path,
    own_config: str,
    capsys: pytest.CaptureFixture[str],
    annotations: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    (tmp_path / "train").mkdir()
    train_flags = write_own_data(tmp_path / "train")[:4]
    val_flags = write_own_data(tmp_path)[4:]
    content = json.loads(Path(val_flags[1]).read_text())
    annotations(content)
    Path(val_flags[1]).write_text(json.dumps(content))
    evaluator = "dataloader.evaluator._target_=queryseg.evaluation.COCOEvaluator"
    argv = ["--config-file", own_config, *train_flags, *val_flags, evaluator]
    assert message in refused(capsys, *argv)
    assert not list((tmp_path / "out").glob("*.pth"))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unusable_image_is_one_line_wherever_it_is_read(
    tmp_path: Path, own_config: str, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    flags = write_own_data(tmp_path)
    for name in ("3.png", "9.png"):
        Image.new("RGB", (17, 12)).save(tmp_path / name)
    mapper = "dataloader.train.mapper={_target_: queryseg.data.mapper.InstanceMapper, "
    changes = [
        mapper + "is_train: true, augmentations: []}",
        f"dataloader.train.num_workers={workers}",
    ]
    message = refused(capsys, "--config-file", own_config, *flags, *changes)
    assert len(message.splitlines()) == 1
    assert message.startswith("error: image ")
    assert "the file is 17 x 12 pixels (width x height)" in message
    assert "Correct width and height in the json" in message


def test_a_config_of_own_data_asks_for_the_flags_again(
    tmp_path: Path, own_config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = ["dataloader.train.dataset.names=own_train_mine_0123abcd"]
    message = refused(capsys, "--config-file", own_config, *saved)
    assert "'own_train_mine_0123abcd' was given by the flags of an earlier run" in message
    assert "give --train-json" in message


def test_an_output_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    for folder in ("taken", "taken/below"):
        output = f"train.output_dir={tmp_path}/{folder}"
        message = refused(capsys, "--config-file", config_file, output)
        assert f"train.output_dir is {tmp_path}/{folder}" in message
        assert "choose another" in message


def test_a_keyboard_interrupt_says_how_to_go_on_and_the_run_does(
    tmp_path: Path,
    config_file: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = ["--config-file", config_file]
    for stop_in, advice in ((1, "No checkpoint was written yet"), (5, "with --resume")):
        with monkeypatch.context() as patch:
            patch.setattr(LazyTrainer, "run_step", interrupted_in(stop_in))
            with pytest.raises(SystemExit) as stop:
                train_main([*base, "train.checkpointer.period=2"])
        shown = capsys.readouterr()
        assert stop.value.code == 130
        assert "Stopped from the keyboard" in shown.out
        assert advice in shown.out
        assert "Traceback" not in shown.out + shown.err
    assert "model_0000003.pth: the same command" in shown.out
    train_main([*base, "--resume"])
    assert "going on with iteration 4" in capsys.readouterr().out


def interrupted_in(iteration: int) -> Callable[[LazyTrainer], None]:
    run_step = LazyTrainer.run_step

    def step(self: LazyTrainer) -> None:
        if self.iter == iteration:
            raise KeyboardInterrupt
        run_step(self)

    return step


def test_the_console_shows_one_line_of_an_error_and_the_file_all(
    tmp_path: Path, config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ["dataloader.train.mapper.broken_image=105", "train.max_iter=30"]
    with pytest.raises(SystemExit):
        train_main(["--config-file", config_file, *broken])
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()


def test_what_every_evaluation_reads_is_described_once_a_run(
    tmp_path: Path, own_config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = write_own_data(tmp_path)
    for _ in range(2):
        train_main(["--config-file", own_config, *flags, "train.eval_period=1"])
        assert capsys.readouterr().out.count("own.json: 2 images, 2 objects, 2 classes") == 1


def test_a_missing_checkpoint_is_named_with_those_that_are_there(
    tmp_path: Path, config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpointer(TinyModel(), str(tmp_path)).save("model_final")
    wrong = f"train.init_checkpoint={tmp_path}/model_finale.pth"
    for flags in ([], ["--eval-only"]):
        message = refused(capsys, "--config-file", config_file, wrong, *flags)
        assert "model_finale.pth does not exist" in message
        assert "model_final.pth" in message


def test_a_loss_that_is_not_finite_ends_the_program_with_one_message(
    config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ["dataloader.train.mapper.broken_image=105", "train.max_iter=30"]
    message = refused(capsys, "--config-file", config_file, *broken)
    assert "loss_ce is nan, loss_size is nan for the images" in message
    assert "105 (image_5.png)" in message


def test_the_help_shows_every_flag_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train_main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    usual = ("--config-file", "--num-gpus", "--num-machines", "--machine-rank", "--dist-url")
    for flag in (*usual, "--resume", "--eval-only", "--train-json", "--batch-size", "eight GPUs"):
        assert flag in text
