"""Networks of diffusers, segmentation-models-pytorch and monai, which are imported when one is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .registry import Built, image, network

# --- diffusers -------------------------------------------------------------------------------------------------


@network("diffusers", "df_unet2d")
def _() -> Built:
    from diffusers import UNet2DModel

    net = UNet2DModel(sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
                      down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=8,
                      up_block_types=("AttnUpBlock2D", "UpBlock2D"))  # fmt: skip
    return net, {"sample": image(16), "timestep": torch.tensor([7]), "return_dict": False}


@network("diffusers", "df_unet2d_condition")
def _() -> Built:
    from diffusers import UNet2DConditionModel

    net = UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, block_out_channels=(16, 32),
                               layers_per_block=1, norm_num_groups=8, cross_attention_dim=16, attention_head_dim=8,
                               down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                               up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))  # fmt: skip
    context = torch.randn(1, 5, 16)
    return net, {"sample": image(16, 4), "timestep": torch.tensor([7]), "encoder_hidden_states": context,
                 "return_dict": False}  # fmt: skip


def _autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


@network("diffusers", "df_vae_encoder")
def _() -> Built:
    return _autoencoder().encoder, image(32)


@network("diffusers", "df_vae_decoder")
def _() -> Built:
    return _autoencoder().decoder, image(8, 4)


@network("diffusers", "df_dit")
def _() -> Built:
    from diffusers import DiTTransformer2DModel

    net = DiTTransformer2DModel(num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=8,
                                num_layers=2, norm_num_groups=4, sample_size=8, num_embeds_ada_norm=20)  # fmt: skip
    return net, {"hidden_states": image(8, 4), "timestep": torch.tensor([7]), "class_labels": torch.tensor([3]),
                 "return_dict": False}  # fmt: skip


@network("diffusers", "df_controlnet_embedding")
def _() -> Built:
    from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding

    return ControlNetConditioningEmbedding(32, block_out_channels=(8, 16, 24)), image(32)


# --- segmentation-models-pytorch -----------------------------------------------------------------------------------


def segmenter(kind: str, encoder: str = "resnet18", size: int = 64, **options: Any) -> Callable[[], Built]:
    def build() -> Built:
        import segmentation_models_pytorch as smp

        return getattr(smp, kind)(encoder, encoder_weights=None, classes=3, **options), image(size)

    return build


for _kind in ("Unet", "UnetPlusPlus", "Linknet", "FPN", "PSPNet", "DeepLabV3Plus", "MAnet", "UPerNet"):
    network("segmentation-models-pytorch", f"smp_{_kind.lower()}")(segmenter(_kind))
network("segmentation-models-pytorch", "smp_pan")(segmenter("PAN", size=256))
network("segmentation-models-pytorch", "smp_segformer_mit")(segmenter("Segformer", "mit_b0"))
network("segmentation-models-pytorch", "smp_unet_efficientnet")(segmenter("Unet", "efficientnet-b0"))


# --- monai -----------------------------------------------------------------------------------------------------


def volumes(kind: str, **options: Any) -> Callable[[], Built]:
    def build() -> Built:
        from monai.networks import nets

        return getattr(nets, kind)(**options), torch.randn(1, 1, 32, 32, 32)

    return build


network("monai", "monai_unet3d")(
    volumes("UNet", spatial_dims=3, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2))
)
network("monai", "monai_segresnet")(volumes("SegResNet", spatial_dims=3, init_filters=8, blocks_down=(1, 1, 1),
                                            blocks_up=(1, 1)))  # fmt: skip
network("monai", "monai_dynunet")(
    volumes("DynUNet", spatial_dims=3, in_channels=1, out_channels=2, kernel_size=[3, 3, 3], strides=[1, 2, 2],
            upsample_kernel_size=[2, 2], filters=[8, 16, 32])
)  # fmt: skip
network("monai", "monai_unetr")(
    volumes("UNETR", in_channels=1, out_channels=2, img_size=(32, 32, 32), feature_size=8, hidden_size=32, mlp_dim=64,
            num_heads=4)
)  # fmt: skip
