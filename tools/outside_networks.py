"""Networks that timm does not make, at small random configurations: what outside.py puts through structprune.

Each entry of `NETWORKS` is a function without arguments that returns a module and its example inputs; `PACKAGES` says
which package each comes from. Nothing is downloaded: the weights are random.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Example = Any  # what structprune.trace takes as example_inputs
Built = tuple[nn.Module, Example]
NETWORKS: dict[str, Callable[[], Built]] = {}
PACKAGES: dict[str, str] = {}


def network(package: str, name: str) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    """Registers a function that builds one network; a name that is there already raises ValueError."""

    def register(build: Callable[[], Built]) -> Callable[[], Built]:
        if name in NETWORKS:
            raise ValueError(f"network {name} is registered twice")
        NETWORKS[name], PACKAGES[name] = build, package
        return build

    return register


def image(size: int = 64, channels: int = 3, batch: int = 1) -> Tensor:
    return torch.randn(batch, channels, size, size)


def tokens(length: int = 12, vocabulary: int = 60, batch: int = 1) -> Tensor:
    return torch.randint(0, vocabulary, (batch, length))


# --- torchvision ---------------------------------------------------------------------------------------------

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


class RetinaHead(nn.Module):
    """RetinaNet without its anchors and boxes: backbone, pyramid and heads."""

    def __init__(self) -> None:
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.models.detection.retinanet import RetinaNetHead

        super().__init__()
        self.backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
        self.head = RetinaNetHead(256, 3, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.head(list(self.backbone(x).values()))


@network("torchvision", "tv_retinanet_head")
def _() -> Built:
    return RetinaHead(), image()


@network("torchvision", "tv_ssdlite_features")
def _() -> Built:
    from torchvision.models import detection

    found = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    return found.backbone, image(96)


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


# --- transformers: vision --------------------------------------------------------------------------------------

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}


def hugging(name: str, model: str, config: str, example: Callable[[], Example], **options: Any) -> None:
    """Registers a model of transformers by the names of its class and of its configuration."""

    @network("transformers", name)
    def _() -> Built:
        import transformers

        chosen = getattr(transformers, config)(**options)
        return getattr(transformers, model)(chosen), example()


def pixels(size: int = 32, batch: int = 1) -> Callable[[], Example]:
    return lambda: {"pixel_values": image(size, batch=batch)}


def words(length: int = 12, masked: bool = True) -> Callable[[], Example]:
    def example() -> Example:
        given = {"input_ids": tokens(length)}
        return {**given, "attention_mask": torch.ones(1, length, dtype=torch.long)} if masked else given

    return example


hugging("hf_vit", "ViTForImageClassification", "ViTConfig", pixels(), **VISION)
hugging("hf_deit", "DeiTForImageClassification", "DeiTConfig", pixels(), **VISION)
hugging("hf_beit", "BeitForImageClassification", "BeitConfig", pixels(), **VISION)
hugging("hf_dinov2", "Dinov2Model", "Dinov2Config", pixels(), **VISION)
hugging("hf_swin", "SwinForImageClassification", "SwinConfig", pixels(64), image_size=64, patch_size=4, embed_dim=16,
        depths=[2, 2], num_heads=[2, 4], window_size=4)  # fmt: skip
hugging("hf_swinv2", "Swinv2Model", "Swinv2Config", pixels(64), image_size=64, patch_size=4, embed_dim=16,
        depths=[2, 2], num_heads=[2, 4], window_size=4)  # fmt: skip
hugging("hf_convnext", "ConvNextForImageClassification", "ConvNextConfig", pixels(64), hidden_sizes=[8, 16, 32, 64],
        depths=[1, 1, 2, 1])  # fmt: skip
hugging("hf_resnet", "ResNetForImageClassification", "ResNetConfig", pixels(64), embedding_size=8,
        hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], layer_type="basic")  # fmt: skip
hugging("hf_regnet", "RegNetForImageClassification", "RegNetConfig", pixels(64), embedding_size=8,
        hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1], groups_width=8)  # fmt: skip
hugging("hf_mobilevit", "MobileViTForImageClassification", "MobileViTConfig", pixels(64), image_size=64,
        hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 64], mlp_ratio=2.0)  # fmt: skip
hugging("hf_poolformer", "PoolFormerForImageClassification", "PoolFormerConfig", pixels(64),
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])  # fmt: skip
hugging("hf_segformer", "SegformerForSemanticSegmentation", "SegformerConfig", pixels(64), hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1], decoder_hidden_size=32, num_attention_heads=[1, 2, 3, 4], num_labels=5)  # fmt: skip
hugging("hf_dpt", "DPTForDepthEstimation", "DPTConfig", pixels(64), **{**VISION, "num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 16, 24, 32], fusion_hidden_size=16,
        reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False)  # fmt: skip
hugging("hf_videomae", "VideoMAEForVideoClassification", "VideoMAEConfig",
        lambda: {"pixel_values": torch.randn(1, 4, 3, 32, 32)}, **VISION, num_frames=4, tubelet_size=2)  # fmt: skip
hugging("hf_timesformer", "TimesformerForVideoClassification", "TimesformerConfig",
        lambda: {"pixel_values": torch.randn(1, 4, 3, 32, 32)}, **VISION, num_frames=4)  # fmt: skip
hugging("hf_swin2sr", "Swin2SRForImageSuperResolution", "Swin2SRConfig", pixels(16), image_size=16, embed_dim=16,
        depths=[2, 2], num_heads=[2, 2], window_size=8)  # fmt: skip
hugging("hf_superpoint", "SuperPointForKeypointDetection", "SuperPointConfig", pixels(64),
        encoder_hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=32, descriptor_decoder_dim=32)  # fmt: skip


@network("transformers", "hf_clip")
def _() -> Built:
    from transformers import CLIPConfig, CLIPModel

    text = {**SMALL, "vocab_size": 60, "max_position_embeddings": 16, "eos_token_id": 2, "bos_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    return CLIPModel(config), {**words()(), "pixel_values": image(32)}


@network("transformers", "hf_siglip_vision")
def _() -> Built:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(**VISION)), pixels()()


@network("transformers", "hf_detr")
def _() -> Built:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic",
                            out_features=["stage4"])  # fmt: skip
    config = DetrConfig(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
                        d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=64, decoder_ffn_dim=64,
                        encoder_attention_heads=4, decoder_attention_heads=4, num_queries=6)  # fmt: skip
    return DetrForObjectDetection(config), {"pixel_values": image(), "pixel_mask": torch.ones(1, 64, 64).long()}


@network("transformers", "hf_yolos")
def _() -> Built:
    from transformers import YolosConfig, YolosForObjectDetection

    config = YolosConfig(**{**VISION, "image_size": [32, 32]}, num_detection_tokens=5)
    return YolosForObjectDetection(config), pixels()()


@network("transformers", "hf_mask2former")
def _() -> Built:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2],
                          window_size=4, out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    config = Mask2FormerConfig(backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32,
                               encoder_feedforward_dim=64, encoder_layers=1, decoder_layers=2, num_attention_heads=4,
                               dim_feedforward=64, num_queries=6, num_labels=5)  # fmt: skip
    return Mask2FormerForUniversalSegmentation(config), pixels(64)()


# --- transformers: text and sound --------------------------------------------------------------------------------

TEXT = {**SMALL, "vocab_size": 60, "max_position_embeddings": 32}
hugging("hf_bert", "BertForSequenceClassification", "BertConfig", words(), **TEXT)
hugging("hf_roberta", "RobertaModel", "RobertaConfig", words(), **TEXT, pad_token_id=1)
hugging("hf_electra", "ElectraForTokenClassification", "ElectraConfig", words(), **TEXT, embedding_size=16)
hugging("hf_albert", "AlbertModel", "AlbertConfig", words(), **TEXT, embedding_size=16)
hugging("hf_mpnet", "MPNetModel", "MPNetConfig", words(), **TEXT)
hugging("hf_distilbert", "DistilBertForSequenceClassification", "DistilBertConfig", words(), vocab_size=60, dim=32,
        n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=32)  # fmt: skip
hugging("hf_gpt2", "GPT2LMHeadModel", "GPT2Config", words(), vocab_size=60, n_embd=32, n_layer=2, n_head=4,
        n_positions=32, use_cache=False, bos_token_id=0, eos_token_id=0)  # fmt: skip
hugging("hf_llama", "LlamaForCausalLM", "LlamaConfig", words(), **TEXT, num_key_value_heads=2, use_cache=False)
hugging("hf_qwen2", "Qwen2ForCausalLM", "Qwen2Config", words(), **TEXT, num_key_value_heads=2, use_cache=False)
hugging("hf_mixtral", "MixtralForCausalLM", "MixtralConfig", words(), **TEXT, num_key_value_heads=2, use_cache=False,
        num_local_experts=4, num_experts_per_tok=2)  # fmt: skip
hugging("hf_whisper_encoder", "WhisperForAudioClassification", "WhisperConfig",
        lambda: {"input_features": torch.randn(1, 16, 40)}, vocab_size=60, num_mel_bins=16, d_model=32,
        encoder_layers=2, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_source_positions=20, max_target_positions=20, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1)  # fmt: skip
hugging("hf_wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config", lambda: {"input_values": torch.randn(1, 2000)}, **SMALL,
        vocab_size=20, conv_dim=[16, 16, 16], conv_kernel=[10, 3, 3], conv_stride=[5, 4, 2], num_feat_extract_layers=3,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4)  # fmt: skip
hugging("hf_hubert", "HubertModel", "HubertConfig", lambda: {"input_values": torch.randn(1, 2000)}, **SMALL,
        conv_dim=[16, 16, 16], conv_kernel=[10, 3, 3], conv_stride=[5, 4, 2], num_feat_extract_layers=3,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4)  # fmt: skip
hugging("hf_audio_spectrogram", "ASTForAudioClassification", "ASTConfig",
        lambda: {"input_values": torch.randn(1, 32, 16)}, **SMALL, patch_size=8, max_length=32, num_mel_bins=16,
        frequency_stride=8, time_stride=8)  # fmt: skip
hugging("hf_encodec", "EncodecModel", "EncodecConfig", lambda: {"input_values": torch.randn(1, 1, 640)},
        num_filters=8, hidden_size=16, codebook_dim=16, codebook_size=16, upsampling_ratios=[4, 2], num_lstm_layers=1,
        target_bandwidths=[24.0], sampling_rate=24000)  # fmt: skip


@network("transformers", "hf_t5_encoder")
def _() -> Built:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=60, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, use_cache=False)
    return T5EncoderModel(config), words()()


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


def _autoencoder() -> nn.Module:
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


# --- monai: volumes --------------------------------------------------------------------------------------------


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


# --- written here, after well-known shapes: sound, text, super-resolution, recurrent ----------------------------------


@network("own", "own_m5_audio")
def _() -> Built:
    """M5 (Dai 2017): raw sound by 1-d convolutions."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in ((1, 32, 80, 16), (32, 32, 3, 1), (32, 64, 3, 1), (64, 64, 3, 1)):
        layers += [nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 10)), torch.randn(2, 1, 4000)


class Reader(nn.Module):
    """CRNN (Shi 2015): reads a line of text; convolutions, then a recurrent layer in both directions."""

    def __init__(self, kind: type[nn.RNNBase], layers: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 48, (8, 3), padding=(0, 1)), nn.ReLU(),
        )  # fmt: skip
        self.rnn = kind(48, 32, num_layers=layers, bidirectional=True, batch_first=True)
        self.head = nn.Linear(64, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).squeeze(2).transpose(1, 2)
        return self.head(self.rnn(x)[0])


@network("own", "own_crnn_lstm")
def _() -> Built:
    return Reader(nn.LSTM), torch.randn(1, 1, 32, 64)


@network("own", "own_crnn_gru")
def _() -> Built:
    return Reader(nn.GRU), torch.randn(1, 1, 32, 64)


class DeepSpeech(nn.Module):
    """DeepSpeech 2 in small: convolutions over spectrograms, recurrent layers with batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, (11, 5), 2, (5, 2)), nn.BatchNorm2d(8), nn.Hardtanh(0, 20),
            nn.Conv2d(8, 8, (11, 5), (2, 1), (5, 2)), nn.BatchNorm2d(8), nn.Hardtanh(0, 20),
        )  # fmt: skip
        self.first, self.second = nn.RNN(64, 32, batch_first=True), nn.RNN(32, 32, batch_first=True)
        self.norm, self.out = nn.BatchNorm1d(32), nn.Linear(32, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(1, 2).transpose(1, 2)
        x = self.norm(self.first(x)[0].transpose(1, 2)).transpose(1, 2)
        return self.out(self.second(x)[0])


@network("own", "own_speech_deepspeech")
def _() -> Built:
    return DeepSpeech(), torch.randn(1, 1, 32, 40)


class Sentiment(nn.Module):
    """Word embeddings and an LSTM; the last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(60, 16), nn.LSTM(16, 32, 2, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(x))[1][0][-1])


@network("own", "own_sentiment_lstm")
def _() -> Built:
    return Sentiment(), tokens()


class ConvLSTM(nn.Module):
    """ConvLSTM (Shi 2015): the next frame of a short film."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates, self.out = nn.Conv2d(1 + hidden, 4 * hidden, 3, padding=1), nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], self.hidden, *x.shape[3:])
        for t in range(x.shape[1]):
            i, f, o, g = self.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


@network("own", "own_conv_lstm")
def _() -> Built:
    return ConvLSTM(), torch.randn(1, 3, 1, 16, 16)


class ResidualBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.body(x)


@network("own", "own_edsr")
def _() -> Built:
    """EDSR (Lim 2017): residual blocks without norms, pixel shuffle."""

    blocks = [ResidualBlock() for _ in range(4)]
    tail = (nn.Conv2d(16, 64, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(16, 3, 3, 1, 1))
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), *blocks, *tail), image(24)


@network("own", "own_dcgan_generator")
def _() -> Built:
    """DCGAN (Radford 2016): a Linear makes the first map, transposed convolutions grow it."""
    return nn.Sequential(
        nn.Linear(20, 32 * 16), nn.Unflatten(1, (32, 4, 4)), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
    ), torch.randn(2, 20)  # fmt: skip


class WaveNet(nn.Module):
    """WaveNet (van den Oord 2016): dilated gated convolutions, residual and skip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 16, 1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(4))
        self.mix = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.skip = nn.ModuleList(nn.Conv1d(16, 24, 1) for _ in range(4))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(24, 24, 1), nn.ReLU(), nn.Conv1d(24, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x), None
        for i, (gate, mix, skip) in enumerate(zip(self.gates, self.mix, self.skip, strict=True)):
            a, b = gate(F.pad(x, (2**i, 0))).chunk(2, 1)
            y = a.tanh() * b.sigmoid()
            x = x + mix(y)
            total = skip(y) if total is None else total + skip(y)
        return self.out(total)


@network("own", "own_wavenet")
def _() -> Built:
    return WaveNet(), torch.randn(1, 1, 64)


class PointNet(nn.Module):
    """PointNet (Qi 2017) without its transforms: shared layers over points, the largest of all points."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        self.points = nn.Sequential(*(
            layer for a, b in itertools.pairwise(widths)
            for layer in (nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU())
        ))  # fmt: skip
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.points(x).max(2)[0])


@network("own", "own_pointnet")
def _() -> Built:
    return PointNet(), torch.randn(2, 3, 50)


class Detector(nn.Module):
    """A one-stage detector: stages, a pyramid, boxes decoded by writes into slices of the output."""

    def __init__(self) -> None:
        super().__init__()

        def conv(a: int, b: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.SiLU())

        self.stem, self.low, self.high = conv(3, 16, 2), conv(16, 32, 2), conv(32, 64, 2)
        self.lateral, self.merge = nn.Conv2d(64, 32, 1), conv(64, 32, 1)
        self.heads = nn.ModuleList((nn.Conv2d(32, 3 * 9, 1), nn.Conv2d(64, 3 * 9, 1)))

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(self.stem(x))
        high = self.high(low)
        up = F.interpolate(self.lateral(high), size=low.shape[2:])
        found = []
        for head, level in zip(self.heads, (self.merge(torch.cat([up, low], 1)), high), strict=True):
            y = head(level)
            batch, _, rows, columns = y.shape
            y = y.view(batch, 3, 9, rows, columns).permute(0, 1, 3, 4, 2).sigmoid()
            y[..., 0:2] = y[..., 0:2] * 2 - 0.5
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2
            found.append(y.reshape(batch, -1, 9))
        return torch.cat(found, 1)


@network("own", "own_yolo_head")
def _() -> Built:
    return Detector(), image(64)


class Translator(nn.Module):
    """nn.Transformer between token embeddings, with masks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(60, 32), nn.Embedding(60, 32)
        self.transformer, self.out = nn.Transformer(32, 4, 2, 2, 64), nn.Linear(32, 60)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        x, y = self.source(source).transpose(0, 1), self.target(target).transpose(0, 1)
        return self.out(self.transformer(x, y, tgt_mask=causal))


@network("own", "own_transformer_translator")
def _() -> Built:
    return Translator(), (tokens(), tokens(9))


class Siamese(nn.Module):
    """Two images through one encoder, compared by cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16),
        )  # fmt: skip

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_similarity(self.encoder(a), self.encoder(b))


@network("own", "own_siamese")
def _() -> Built:
    return Siamese(), (image(32), image(32))
