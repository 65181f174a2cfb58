from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.cli import request
from service.cli.errors import InputError
from service.cli.parse import BudgetLimit
from service.cli.request import JobFlags, ModelFlags, PreprocessingFlags, TargetFlags, Uploaded

HALF = JobFlags(BudgetLimit(fraction=0.5))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"not looked into")
    return path


def test_what_no_flag_names_is_left_to_the_server() -> None:
    spec = request.job_spec(ModelFlags("timm:resnet18"), TargetFlags(), PreprocessingFlags(), HALF, Uploaded())
    assert spec == job_pb.OptimizationJobSpec(
        model=job_pb.ModelSource(named=job_pb.NamedModel(architecture="timm:resnet18")),
        budget=job_pb.Budget(fraction=0.5),
        target=job_pb.Target(),
        preprocessing=job_pb.Preprocessing(),
        fine_tuning=job_pb.FineTuning(),
    )


def test_every_flag_reaches_the_spec() -> None:
    flags = JobFlags(
        BudgetLimit(latency_ms=12.0),
        strategy="layerfit",
        option=(("refit", True), ("kernels", [1, 3])),
        epochs=3,
        patience=2,
        no_finetune=True,
        time_limit=timedelta(minutes=30),
        accuracy_floor=0.9,
        seed=7,
    )
    target = TargetFlags("local/cpu", "onnxruntime", "fp16", threads=2, batch=4, percentile=99.0)
    model = ModelFlags("torchvision:resnet18", "w.safetensors", 10, (1, 8, 8))
    uploaded = Uploaded(weights="artifacts/w", train="artifacts/t", validation="artifacts/v")
    spec = request.job_spec(model, target, PreprocessingFlags((0.5,), (0.25,)), flags, uploaded)
    assert spec.model == job_pb.ModelSource(
        named=job_pb.NamedModel(architecture="torchvision:resnet18", weights_artifact="artifacts/w", num_classes=10),
        sample_shape=(1, 8, 8),
    )
    assert spec.budget == job_pb.Budget(latency_ms=12.0, percentile=99.0, batch=4)
    assert spec.target == job_pb.Target(
        device="local/cpu", runtime="onnxruntime", precision=job_pb.PRECISION_FP16, threads=2
    )
    assert spec.strategy.name == "layerfit"
    assert dict(spec.strategy.options) == {"refit": True, "kernels": [1, 3]}
    assert spec.fine_tuning == job_pb.FineTuning(disabled=True, epochs=3, patience=2)
    assert spec.time_limit.ToTimedelta() == timedelta(minutes=30)
    assert (spec.accuracy_floor, spec.seed) == (0.9, 7)
    assert spec.preprocessing == job_pb.Preprocessing(mean=[0.5], std=[0.25])
    assert spec.data.train.artifact == "artifacts/t"
    assert spec.data.validation.artifact == "artifacts/v"


def test_columns_go_into_the_data() -> None:
    samples = PreprocessingFlags(text_column=("q", "a"), label_column="y")
    spec = request.job_spec(ModelFlags("timm:a"), TargetFlags(), samples, HALF, Uploaded(train="artifacts/t"))
    assert spec.data == job_pb.DataReference(
        train=job_pb.DataSplit(artifact="artifacts/t"), text_columns=["q", "a"], label_column="y"
    )


def test_an_uploaded_file_is_the_model(model: Path) -> None:
    source = request.model_source(ModelFlags(str(model)), Uploaded(model="artifacts/m"))
    assert source == job_pb.ModelSource(pt2_artifact="artifacts/m")


def test_the_preprocessing_file_is_read_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"mean": [0.1], "std": [0.2], "resize": 36, "cropFraction": 0.9, "raw": False}))
    found = request.preprocessing(PreprocessingFlags(preprocess=str(file), std=(0.3,)))
    assert found == job_pb.Preprocessing(mean=[0.1], std=[0.3], resize=36, crop_fraction=0.9, raw=False)


@pytest.mark.parametrize("content", ["", "[1]", '{"means": [1]}', '{"resize": "big"}', "\xff"])
def test_a_broken_preprocessing_file_is_refused_with_its_fields(tmp_path: Path, content: str) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"no JSON object with fields out of mean, std, resize") as caught:
        request.preprocessing(PreprocessingFlags(preprocess=str(file)))
    assert len(caught.value.lines[0].splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (ModelFlags("nowhere.pt2"), "MODEL nowhere.pt2 cannot be read: No such file"),
        (ModelFlags("."), r"holds neither an \.onnx file nor config\.json"),
        (ModelFlags("net.h5"), r"must be a \.pt2 file"),
        (ModelFlags("net.onnx"), "MODEL net.onnx cannot be read: No such file"),
        (ModelFlags("transformers:a b"), "no architecture name"),
        (ModelFlags("timm:a", weights="w", pretrained=True), "give one of the two"),
        (ModelFlags("timm:a", input_shape=(("x", (1,)), ("x", (2,)))), "names an input twice"),
        (ModelFlags("timm:a b"), "no architecture name"),
        (ModelFlags("timm:resnet18", weights="nowhere.bin"), r"--weights nowhere\.bin cannot be read"),
    ],
)
def test_models_that_cannot_be_used_are_refused(flags: ModelFlags, message: str) -> None:
    with pytest.raises(InputError, match=message):
        request.check_model(flags)


@pytest.mark.parametrize("extra", [{"weights": "w.bin"}, {"num_classes": 3}, {"pretrained": True}])
def test_a_file_takes_no_weights_and_no_classes(model: Path, extra: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"belong to names like timm:NAME"):
        request.check_model(ModelFlags(str(model), **extra))  # type: ignore[arg-type]


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").mkdir()
    with pytest.raises(InputError, match="holds neither"):
        request.check_model(ModelFlags(str(tmp_path / "net.pt2")))


def test_good_models_pass(model: Path) -> None:
    request.check_model(ModelFlags(str(model)))
    request.check_model(ModelFlags("timm:resnet18", weights=str(model), num_classes=10))


def test_a_file_has_no_head_to_pick(model: Path) -> None:
    with pytest.raises(InputError, match=r"no task 'fill-mask'; give one of classification, multi"):
        request.check_model(ModelFlags(str(model), task="fill-mask"))


@pytest.mark.parametrize(
    ("model", "task", "told", "head"),
    [
        ("timm:resnet18", "multi_label", "multi_label", ""),
        ("timm:resnet18", "image-classification", "classification", ""),
        ("timm:resnet18", "distillation", "none", ""),
        ("transformers:bert", "text-classification", "", "text-classification"),
        ("transformers:bert", "none", "none", ""),
    ],
)
def test_a_task_is_what_outputs_mean_or_the_head_of_a_transformers_model(
    model: str, task: str, told: str, head: str
) -> None:
    flags = ModelFlags(model, task=task)
    request.check_model(flags)
    spec = request.job_spec(flags, TargetFlags(), PreprocessingFlags(), HALF, Uploaded())
    assert (spec.task, spec.model.named.task) == (told, head)
