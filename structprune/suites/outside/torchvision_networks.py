"""Networks of torchvision, which is imported when one is built."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..as_users import users
from .registry import Built, image, network

CLASSIFIERS = {  # each with the size of its image
    "alexnet": 64, "resnet18": 64, "resnext50_32x4d": 64, "densenet121": 64,
    "squeezenet1_1": 64, "googlenet": 64, "inception_v3": 299, "mobilenet_v2": 64, "mobilenet_v3_small": 64,
    "shufflenet_v2_x0_5": 64, "mnasnet0_5": 64, "efficientnet_b0": 64, "regnet_y_400mf": 64, "convnext_tiny": 64,
    "swin_t": 64, "swin_v2_t": 64, "maxvit_t": 224, "vit_b_32": 224,
}  # fmt: skip


def classifier(name: str, size: int) -> Callable[[], Built]:
    def build() -> Built:
        import torchvision

        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, num_classes=10, **extra), image(size, batch=2)

    return build


for _name, _size in CLASSIFIERS.items():
    network("torchvision", f"tv_{_name}")(classifier(_name, _size))


@network("torchvision", "tv_fcn_resnet50")
def _() -> Built:
    from torchvision.models import segmentation

    return segmentation.fcn_resnet50(weights_backbone=None, num_classes=5, aux_loss=True), image()


@network("torchvision", "tv_deeplabv3_mobilenet")
def _() -> Built:
    from torchvision.models import segmentation

    return segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None, num_classes=5), image()


@network("torchvision", "tv_lraspp_mobilenet")
def _() -> Built:
    from torchvision.models import segmentation

    return segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=5), image()


@network("torchvision", "tv_resnet50_fpn")
def _() -> Built:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5), image()


@network("torchvision", "tv_retinanet_head")
def _() -> Built:
    return users("outside_networks").RetinaHead(), image()


@network("torchvision", "tv_ssdlite_features")
def _() -> Built:
    from torchvision.models import detection

    detector = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    return detector.backbone, image(96)


@network("torchvision", "tv_r3d_18")
def _() -> Built:
    from torchvision.models import video

    return video.r3d_18(num_classes=5), torch.randn(1, 3, 4, 32, 32)


@network("torchvision", "tv_r2plus1d_18")
def _() -> Built:
    from torchvision.models import video

    return video.r2plus1d_18(num_classes=5), torch.randn(1, 3, 4, 32, 32)


@network("torchvision", "tv_s3d")
def _() -> Built:
    from torchvision.models import video

    return video.s3d(num_classes=5), torch.randn(1, 3, 16, 224, 224)


@network("torchvision", "tv_raft_small_encoder")
def _() -> Built:
    from torchvision.models import optical_flow

    return optical_flow.raft_small(weights=None).feature_encoder, image()
