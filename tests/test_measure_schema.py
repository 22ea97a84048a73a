"""The written form of a report: the schema that ships is that of the records, and real reports keep it."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gpunet.measure import rows, schema
from gpunet.measure.rows import Proof, Ratio, Report, Roof, Row, Timing

SHIPPED = Path(schema.__file__).with_name("report.schema.json")
TIMING = Timing(1e-3, 9e-4, 1.1e-3, 9e-4, 1.1e-3, 8e-4, 2e-3, 20, 1, 5e-3, 0.2, 3, "cold", "noise")


def report() -> dict[str, Any]:
    """A report with a record of most kinds."""
    proof = Proof("relu", "relu.forward", "forward", "cpu", "numpy", "reference", "f:1", "float32", "mlp", "passed")
    row = Row(
        "relu", "relu.forward", "forward", "cpu", "numpy", "reference", "f:1", "float32", "mlp", "own", "quick",
        [[2, 3]], {"axis": 1}, "passed", 0.0, 1e-6, TIMING, 6, 24, 24, 1.0, 2.0, 50.0, "memory", False,
    )  # fmt: skip
    ratio = Ratio(
        "relu.forward", "mlp", "float32", "cpu", "numpy", "reference", True, "torch", 1e-3, 2e-3, 2, 1.9, 2.1, 9
    )
    roof = Roof("cpu", "float32", 1e11, float("inf"), 1e11, 1)
    return Report(roofs=[roof], proofs=[proof], rows=[row], ratios=[ratio], complete=True).to_dict()


def test_what_ships_is_what_the_records_say():
    assert SHIPPED.read_text() == schema.text(), "python -m gpunet.measure.schema > gpunet/measure/report.schema.json"


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema.schema())


def test_a_report_keeps_it():
    jsonschema.validate(json.loads(json.dumps(report())), schema.schema())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2), (("format",), "other"), (("rows", 0, "flops"), "many"),
        (("rows", 0, "time", "median"), "1 ms"),
        (("proofs", 0, "status"), None), (("complete",), "yes"), (("ratios", 0, "n"), 1.5),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(path: tuple[Any, ...], value: Any):
    wrong = copy.deepcopy(report())
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema.schema())


def test_every_field_of_a_row_is_described_or_plain():
    told = schema.schema()["$defs"]["Row"]["properties"]
    assert set(told) == set(rows.Row.__dataclass_fields__)
    assert "description" in told["copy_in"]
