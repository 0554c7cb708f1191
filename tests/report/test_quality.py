"""What a report says of quality, for labels and without, and of any task's metric."""

from structprune.quality_judge import Quality
from structprune.report.quality import quality_record
from structprune.report.table import quality_rows


def test_with_labels_accuracy_stands_beside_what_is_near_to_dense():
    dense = Quality("accuracy", 0.9, True, 50, {"top-5 accuracy": 1.0}, {"agreement": 1.0, "kl": 0.0})
    final = Quality("accuracy", 0.8, True, 50, {"top-5 accuracy": 0.95}, {"agreement": 0.85, "kl": 0.3})
    record = quality_record({"dense": dense, "pruned": final, "final": final})
    assert (record.metric, record.images, record.dense, record.final) == ("accuracy", 50, 0.9, 0.8)
    assert "kl" not in record.to_data()
    assert "random_weights" not in record.to_data()
    assert record.others == {"top-5 accuracy": {"dense": 1.0, "pruned": 0.95, "final": 0.95}}
    assert record.likeness["kl"] == {"dense": 0.0, "pruned": 0.3, "final": 0.3}
    assert quality_rows(record)[-1] == ("accuracy, final", "0.9000", "0.8000", "-10.00 points")
    final.likeness["still right"] = dense.likeness["still right"] = 0.85
    record = quality_record({"dense": dense, "pruned": final, "final": final})
    assert quality_rows(record)[-1] == ("still right", "1.0000", "0.8500", "of what dense gets right")


def test_without_labels_it_is_agreement_and_kl():
    dense = Quality("agreement", 1.0, True, 50, {}, {"agreement": 1.0, "kl": 0.0}, labelled=False)
    final = Quality("agreement", 0.7, True, 50, {}, {"agreement": 0.7, "kl": 0.3}, labelled=False)
    record = quality_record({"dense": dense, "pruned": final, "final": final}, random_weights=True)
    assert record.kl == {"dense": 0.0, "pruned": 0.3, "final": 0.3}
    assert record.random_weights is True
    assert record.likeness == {}
    assert quality_rows(record)[1] == (
        "agreement with dense, final",
        "1.0000",
        "0.7000",
        "top-1, 50 crops, random weights",
    )


def test_any_metric_is_shown_with_its_direction():
    dense = Quality("relative error", 0.0, False, 9, {}, {"relative error": 0.0}, labelled=False)
    final = Quality("relative error", 0.25, False, 9, {}, {"relative error": 0.25}, labelled=False)
    record = quality_record({"dense": dense, "pruned": final, "final": final})
    assert record.higher_is_better is False
    rows = quality_rows(record)
    assert rows[-1] == ("relative error, final", "0.0000", "0.2500", "+0.2500; lower is better, 9 samples")
    dense = Quality("miou", 0.5, True, 9, {"pixel accuracy": 0.9}, {"agreement": 1.0, "kl": 0.0})
    record = quality_record({"dense": dense, "pruned": dense, "final": dense})
    assert [row[0] for row in quality_rows(record)] == [
        "miou, as cut", "miou, final", "agreement, as cut", "agreement, final", "kl, as cut", "kl, final",
    ]  # fmt: skip
