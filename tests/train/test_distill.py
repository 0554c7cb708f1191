"""The slim network learns from the dense one, with labels and without; losses against their definitions."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.errors import RecipeError
from structprune.recipe import TrainSpec
from structprune.tasks.building import make_task
from structprune.train import agreement, fit, predict
from tests.train.small_training import equal, interrupted, network, samples


def pair(folder):
    """A trained network, and the same cut to half."""
    images, labels = samples()
    spec = TrainSpec(epochs=8, batch_size=32, lr=0.01)
    dense = fit(network(), TensorDataset(images, labels), spec, seed=0, checkpoint=folder / "dense")
    graph = sp.trace(dense, images[:1])
    return dense, lambda: sp.prune(dense, sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.5}, align=1))


def distilled(folder, dense, slim, data, **options):
    folder.mkdir()
    spec = TrainSpec(epochs=8, batch_size=32, lr=0.01, methods=[{"method": "distill", **options}])
    return fit(slim, data, spec, dense=dense, seed=0, checkpoint=folder / "c")


def test_it_learns_from_inputs_alone(tmp_path):
    images, _ = samples()
    dense, cut = pair(tmp_path)
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    target = predict(dense, images)
    slim = distilled(tmp_path / "a", dense, cut(), TensorDataset(images))
    start, end = agreement(target, predict(cut(), images)), agreement(target, predict(slim, images))
    assert end[0] >= start[0]
    assert end[1] < start[1] / 3
    assert all(torch.equal(value, before[key]) for key, value in dense.state_dict().items())
    assert not dense.training


def test_labels_can_count_for_nothing(tmp_path):
    images, labels = samples()
    dense, cut = pair(tmp_path)
    without = distilled(tmp_path / "a", dense, cut(), TensorDataset(images))
    wrong = TensorDataset(images, labels.flip(0))
    assert equal(without, distilled(tmp_path / "b", dense, cut(), wrong, task_loss_weight=0))
    assert not equal(without, distilled(tmp_path / "c", dense, cut(), wrong))


@pytest.mark.parametrize(("lr", "kept"), [(0.003, "after epoch"), (3.0, "before the first of the 6")])
def test_the_best_weights_are_kept_without_labels_and_those_that_it_begins_with_count(tmp_path, lr, kept):
    images, _ = samples()
    dense, cut = pair(tmp_path)
    spec = TrainSpec(epochs=6, batch_size=32, lr=lr, keep_best=True, methods=[{"method": "distill"}])
    data, notes = {"validation": TensorDataset(images), "dense": dense, "seed": 0}, []
    figures = []
    slim = fit(
        cut(), TensorDataset(images), spec, checkpoint=tmp_path / "c", tell=notes.append,
        log=lambda rows: figures.append(rows[-1]), **data,
    )  # fmt: skip
    start, end = (agreement(predict(dense, images), predict(network, images))[0] for network in (cut(), slim))
    assert {row.metric for row in figures} == {"agreement"}
    assert end == pytest.approx(max(start, *(row.value for row in figures)))
    assert equal(slim, cut()) == (lr > 1)
    assert f"{end:.4f}, {kept}" in notes[0]


@pytest.mark.parametrize("options", [{}, {"feature_loss_weight": 1.0, "modules": ["0"]}])
def test_an_interrupted_distillation_ends_the_same(tmp_path, options):
    dense, _ = pair(tmp_path)
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.01, methods=[{"method": "distill", **options}])
    data, taught = TensorDataset(*samples()), {"dense": dense, "seed": 5}
    whole = fit(network(), data, spec, checkpoint=tmp_path / "whole", **taught)
    assert equal(whole, interrupted(spec, tmp_path, at=9, **taught))


def test_nothing_to_measure_by_is_said_before_training(tmp_path):
    images, _ = samples()
    spec = TrainSpec(epochs=2, batch_size=32, lr=0.01, patience=1)
    with pytest.raises(
        RecipeError, match="labels or a dense network's outputs, and here task classification has neither"
    ):
        fit(network(), TensorDataset(images), spec, validation=TensorDataset(images), seed=0, checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_losses_by_hand():
    torch.manual_seed(0)
    ours, theirs = torch.randn(5, 4), torch.randn(5, 4)
    p, q = (theirs / 3).softmax(1), (ours / 3).softmax(1)
    expected = 9 * float((p * (p / q).log()).sum() / 5)
    assert float(make_task("classification").imitation_loss(ours, theirs, 3.0)) == pytest.approx(expected, rel=1e-5)
    a, b = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    expected = float(((a - b) ** 2).mean() / b.var(correction=0))
    assert float(make_task("regression").imitation_loss(a, b)) == pytest.approx(expected, rel=1e-5)
    cosine = float(1 - F.cosine_similarity(ours, theirs).mean())
    assert float(make_task("embedding").imitation_loss(ours, theirs)) == pytest.approx(cosine, rel=1e-5)
    with pytest.raises(RecipeError, match="can't be compared with the dense network's"):
        make_task("regression").imitation_loss({}, b)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_inner_features_of_other_widths_come_nearer(tmp_path, name):
    torch.manual_seed(0)
    dense = timm.create_model(name, num_classes=3, in_chans=1, **({"img_size": 32} if "vit" in name else {})).eval()
    images = torch.randn(16, 1, 32, 32)
    graph = sp.trace(dense, images[:1])
    slim = sp.prune(dense, sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=1))
    losses = []
    modules = {} if name == "test_resnet" else {"modules": ["blocks.*"]}
    if modules:
        modules = {"modules": ["blocks.0", "blocks.1"]}
    spec = TrainSpec(
        epochs=6, batch_size=8, lr=1e-3,
        methods=[{"method": "distill", "distill_loss_weight": 0, "feature_loss_weight": 1.0, **modules}],
    )  # fmt: skip
    fit(
        slim, TensorDataset(images), spec, dense=dense, seed=0, checkpoint=tmp_path / "c",
        progress=lambda step, steps, shown: losses.append(shown["loss"]),
    )  # fmt: skip
    assert losses[-1] < 0.8 * losses[0]
    assert not any(module._forward_hooks for model in (dense, slim) for module in model.modules())


def test_modules_that_are_not_called_are_passed_over(tmp_path):
    images = samples()[0]
    dense, slim = network(), network()
    for net in (dense, slim):
        net[0].unused = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        slim[0].weight.mul_(2)
    before = {key: value.clone() for key, value in slim.state_dict().items()}
    options = {"distill_loss_weight": 0, "feature_loss_weight": 1.0, "modules": ["0", "0.unused"]}
    distilled(tmp_path / "a", dense, slim, TensorDataset(images), **options)
    assert torch.equal(slim[0].unused.weight, before["0.unused.weight"])
    assert not torch.equal(slim[0].weight, before["0.weight"])


def test_what_can_t_teach(tmp_path):
    data = TensorDataset(samples()[0])
    with pytest.raises(RecipeError, match="learns from the dense network, and there is none"):
        distilled(tmp_path / "a", None, network(), data)
    with pytest.raises(RecipeError, match="does not say what its stages are"):
        distilled(tmp_path / "b", network(), network(), data, feature_loss_weight=1.0)
    with pytest.raises(RecipeError, match="no module's name fits"):
        distilled(tmp_path / "c", network(), network(), data, feature_loss_weight=1.0, modules=["layer*"])
    with pytest.raises(RecipeError, match="features are maps"):
        distilled(tmp_path / "d", network(), network(), data, feature_loss_weight=1.0, modules=["5"])
    assert isinstance(network()[5], nn.Linear)


def test_what_would_do_nothing_is_refused(tmp_path):
    data = TensorDataset(samples()[0])
    with pytest.raises(ValueError, match="are all 0"):
        TrainSpec(epochs=1, lr=0.1, methods=[{"method": "distill", "distill_loss_weight": 0}])
    spec = TrainSpec(epochs=1, batch_size=32, lr=0.1, smoothing=0.1, methods=["distill"])
    with pytest.raises(RecipeError, match="smoothing needs one class number a sample as label"):
        fit(network(), data, spec, dense=network(), seed=0, checkpoint=tmp_path / "c")


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_without_labels_are_mixed_for_both_networks(tmp_path, kind):
    images, seen = samples()[0], {"dense": [], "slim": []}
    dense, slim = network(), network()
    for name, model in (("dense", dense), ("slim", slim)):
        model.register_forward_hook(lambda module, inputs, output, name=name: seen[name].append(inputs[0].clone()))
    spec = TrainSpec(epochs=2, batch_size=64, lr=0.001, mixup_off_epoch=1, methods=["distill"], **{kind: 1.0})
    fit(slim, TensorDataset(images), spec, dense=dense, seed=0, checkpoint=tmp_path / "c")
    steps = len(images) // 64
    theirs, ours = seen["dense"], [x for x in seen["slim"] if len(x) == 64]
    assert len(theirs) == len(ours) == 2 * steps
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    known = {tuple(image.flatten().tolist()) for image in images}
    new = [sum(tuple(image.flatten().tolist()) not in known for image in batch) for batch in ours]
    assert min(new[:steps]) > 32
    assert not any(new[steps:])


def test_a_method_of_ones_own_may_need_no_labels(tmp_path):
    own = tmp_path / "own_loss_of_tests.py"
    own.write_text(
        "from structprune.train.method import TrainingMethod\n"
        "class Small(TrainingMethod):\n"
        "    gives_loss = True\n"
        "    def loss(self, step):\n"
        "        return step.loss + step.outputs.square().mean()\n"
        "class Nothing(TrainingMethod): pass\n"
    )
    images = samples()[0]
    spec = TrainSpec(epochs=5, batch_size=32, lr=0.05, methods=[f"{own}:Small"])
    assert not spec.needs_labels
    model = fit(network(), TensorDataset(images), spec, seed=0, checkpoint=tmp_path / "a")
    assert float(predict(model, images).square().mean()) < float(predict(network().eval(), images).square().mean())
    without = TrainSpec(epochs=1, batch_size=32, lr=0.05, methods=[f"{own}:Nothing"])
    with pytest.raises(RecipeError, match="training needs labels"):
        fit(network(), TensorDataset(images), without, seed=0, checkpoint=tmp_path / "b")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_teacher_goes_back_to_where_it_was(tmp_path):
    dense, cut = pair(tmp_path)
    distilled(tmp_path / "a", dense, cut(), TensorDataset(samples()[0]))
    assert {tensor.device.type for tensor in dense.state_dict().values()} == {"cpu"}


def test_the_dense_network_says_it_in_the_precision_and_layout_of_the_training(tmp_path):
    images, _ = samples()
    dense, cut = pair(tmp_path)
    seen = []
    hook = dense[1].register_forward_hook(
        lambda module, inputs, output: seen.append((output.dtype, output.is_contiguous()))
    )
    slim = cut()
    fit(
        slim,
        TensorDataset(images),
        TrainSpec(epochs=1, batch_size=32, lr=0.01, methods=["distill"], amp_dtype="bfloat16", channels_last=True),
        dense=dense,
        seed=0,
        checkpoint=tmp_path / "c",
    )
    hook.remove()
    assert set(seen) == {(torch.bfloat16, False)}
    for tensor in (*dense.parameters(), *slim.parameters()):
        assert tensor.is_contiguous()
        assert tensor.dtype == torch.float32


@pytest.mark.parametrize("options", [{"distill_loss_weight": 0.0}, {"feature_loss_weight": 1.0}])
def test_channels_that_blocks_hand_on_come_nearer_to_the_dense_network_s(tmp_path, options):
    torch.manual_seed(0)
    dense = timm.create_model("test_resnet", num_classes=3, in_chans=1).eval()
    images = torch.randn(16, 1, 32, 32)
    graph = sp.trace(dense, images[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=1)

    def distance(slim):
        """By hand, for the second stage: its channels are those of the weights that make them."""
        maps = {}
        hooks = [
            model.layer2.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output}))
            for name, model in (("dense", dense), ("slim", slim))
        ]
        with torch.no_grad():
            dense(images), slim(images)
        for hook in hooks:
            hook.remove()
        kept = maps["dense"][:, plan.keep["layer2.0.bn2.weight"]["0"]]
        return float((maps["slim"] - kept).square().mean() / kept.var(correction=0))

    slim = sp.prune(dense, plan)
    before = distance(slim)
    distill = {"method": "distill", "block_loss_weight": 1.0, **options}
    spec = TrainSpec(epochs=6, batch_size=8, lr=1e-3, methods=[distill, "frozen_statistics"])
    fit(slim, TensorDataset(images), spec, dense=dense, plan=plan, seed=0, checkpoint=tmp_path / "c")
    assert distance(slim) < 0.8 * before
    assert not any(module._forward_hooks for model in (dense, slim) for module in model.modules())


def test_channels_of_blocks_need_a_plan(tmp_path):
    data = TensorDataset(samples()[0])
    with pytest.raises(RecipeError, match="channels that a plan keeps, and there is none"):
        distilled(tmp_path / "a", network(), network(), data, block_loss_weight=1.0)
