"""Networks of transformers, which is imported when one is built: images, text and sound, at small configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .registry import Built, Example, image, network, tokens

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
        inputs = {"input_ids": tokens(length)}
        return {**inputs, "attention_mask": torch.ones(1, length, dtype=torch.long)} if masked else inputs

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
