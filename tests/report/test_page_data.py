"""The numbers behind a page's pictures, and the words beside them."""

import json
from pathlib import Path

from structprune.report import Report
from structprune.report.page_data import quality_stages

DATA = json.loads((Path(__file__).parent / "report.json").read_text())


def test_the_dense_networks_agreement_with_itself_is_exact():
    quality = {"metric": "agreement", "images": 100, "dense": 1.0, "pruned": 0.5, "final": 0.9, "random_weights": False}
    dense, pruned, *_ = quality_stages(Report.model_validate({**DATA, "quality": quality}))
    assert dense.interval_text == "exact"
    assert pruned.interval_text == "40.4 to 59.6 %"


def test_what_has_no_interval_is_not_known():
    quality = {"metric": "psnr", "images": 100, "dense": 31.5, "pruned": 30.5, "final": 31.4}
    stages = quality_stages(Report.model_validate({**DATA, "quality": quality}))
    assert {stage.interval_text for stage in stages} == {"not known"}
