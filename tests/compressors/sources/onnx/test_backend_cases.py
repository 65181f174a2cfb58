"""The operator table against ONNX's own node tests: inputs and wanted results come with the onnx package."""

import re
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compressors.errors import ModelError, UnsupportedModelError
from compressors.sources.onnx.network import Network
from compressors.sources.onnx.operators import OPERATORS, check_known
from compressors.sources.onnx.parse import parse
from compressors.sources.onnx.prepare import prepare

UNSEEN = {"GlobalLpPool", "LayerNormalization", "MeanVarianceNormalization"}
"""Operators of the table without a case that can be imported; `test_operators` has them, or they are refused."""

REFUSED = {
    r"test_attention.*(past|present|qk_matmul|nonpad|padded_kv|cache|with_qk|decode)": "keeps a cache",
    r"test_attention.*softcap": "limits its scores",
    r"test_attention.*window": "looks through a window",
    r"test_layer_normalization": "its further results are used",
    r"test_scatternd_(multiply|max|min)": "a reduction that torch has no exact form of",
    r"test_resize_tf_crop_and_resize": "crops by coordinates",
    r"test_resize_.*(not_larger|not_smaller)": "keeps the aspect ratio by a policy",
    r"test_resize_.*(exclude_outside|antialias)": "weights that torch has no exact form of",
    r"test_resize_downsample_scales_(linear|cubic)_align_corners": "aligns corners that do not exist",
    r"test_constantofshape": "its shape is the model's input",
    r"test_maxpool_with_argmax": "positions of the maxima are used",
    r"test_maxpool_2d_uint8": "not floating point",
    r"test_mvn$": "mixes samples",
    r"test_dropout_.*mask": "its mask is used",
    r"test_if$": "its condition is the model's input",
    r"test_batchnorm_.*training_mode": "training mode",
    r"test_reduce_(max|min)_empty_set": "has no value in torch",
    r"test_(constant|optional_has_element)": "takes no input",
    r"test_not_|test_.*_opset1": "older than the oldest opset",
    r"test_training_dropout": "training mode",
}
"""Cases whose operators are in the table, and that are refused all the same, with the reason."""


@pytest.fixture(scope="module")
def cases():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return collect_testcases(None)


def imported(case, keep, folder: Path):
    """The results of the importer; inputs from `keep` on are stored in the file."""
    inputs, _ = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.input[:]
    data = []
    for index, (proto, value) in enumerate(zip(case.model.graph.input, inputs, strict=True)):
        if index < keep:
            model.graph.input.append(proto)
            data.append(torch.from_numpy(np.array(value)))
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), proto.name))
    path = folder / "case.onnx"
    path.write_bytes(model.SerializeToString())
    parsed = parse(path)
    check_known(parsed.nodes, parsed.where)
    with torch.no_grad():
        return Network(prepare(parsed))(**{f"x{index}": value for index, value in enumerate(data)})


def computable(case) -> bool:
    """Whether all values are tensors of types that torch's tensors can be made of."""
    values = [value for part in case.data_sets[0] for value in part]
    plain = all(isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub" for value in values)
    return plain and not any(value.dtype == ml_dtypes.bfloat16 for value in values)


TYPED = {"test_averagepool_2d_ceil_last_window_starts_on_pad", "test_gridsample_bicubic"}
"""Cases whose wanted results were typed with four digits."""


def agrees(wanted, got, tolerance=1e-5) -> bool:
    left, right = np.asarray(wanted, np.float64), got.numpy().astype(np.float64)
    return left.shape == right.shape and np.allclose(left, right, rtol=1e-4, atol=tolerance, equal_nan=True)


def test_every_case_of_the_table_agrees_or_is_refused(cases, tmp_path):
    wrong, agreed, used = [], 0, set()
    for case in filter(computable, cases):
        try:
            try:
                got = imported(case, len(case.model.graph.input), tmp_path)
            except UnsupportedModelError as exc:
                if "must be known" not in str(exc):
                    raise
                got = imported(case, 1, tmp_path)
        except ModelError as exc:
            ops = {node.op_type for node in case.model.graph.node}
            known = ops <= set(OPERATORS) and not re.search(r"element type|\?type|_type", str(exc))
            named = any(re.match(pattern, case.name) for pattern in REFUSED)
            if known and not named:
                wrong.append(f"{case.name} refused: {exc}")
            continue
        if all(
            agrees(*pair, 1e-3 if case.name in TYPED else 1e-5) for pair in zip(case.data_sets[0][1], got, strict=False)
        ):
            agreed += 1
            used |= {node.op_type for node in case.model.graph.node}
        else:
            wrong.append(f"{case.name} differs")
    assert wrong == []
    assert agreed > 1000
    assert {name for name in OPERATORS if not name.startswith(".")} - used <= UNSEEN
