"""The functions that a saved network may name: those that compute something from their arguments and do nothing else.

Admission is by this list, not by package: `torch` also holds `load`, `save`, `compile` and `empty`, which unpickle,
write, generate code and show old memory. Everything here returns a tensor, a number or a shape, or fills the tensor
that it is given; none opens a file, imports, calls what it is given or reads memory beyond its arguments.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_LISTS = {
    "torch": """
        abs acos acosh add addcdiv addcmul addmm amax amin angle argmax argmin asin asinh atan atan2 atanh baddbmm
        bernoulli bmm broadcast_tensors broadcast_to cat cdist ceil celu chunk clamp clamp_max clamp_min clone complex
        concat conj conv1d conv2d conv3d cos cosh cosine_similarity cross cummax cummin cumprod cumsum deg2rad diag
        diag_embed diagonal diff div dot einsum eq erf erfc erfinv exp exp2 expm1 flatten flip floor floor_divide fmod
        frac full_like gather ge gt hstack hypot imag index_select isfinite isinf isnan le lerp log log10 log1p log2
        logaddexp logical_and logical_not logical_or logical_xor logit logsumexp lt masked_fill matmul max maximum mean
        median min minimum mm moveaxis movedim mul mv nan_to_num narrow ne neg norm ones_like outer permute
        polar pow prod rad2deg rand_like randn_like real reciprocal relu relu_ remainder repeat_interleave reshape roll
        round rsqrt selu selu_ sigmoid sigmoid_ sign sin sinc sinh softmax sort split sqrt square squeeze stack std sub
        sum swapaxes swapdims t tan tanh tanh_ tile topk transpose tril triu true_divide trunc unbind unflatten
        unsqueeze var view_as_complex view_as_real vstack where zeros_like log_softmax prelu rrelu rrelu_ dropout
        layer_norm group_norm batch_norm instance_norm rms_norm celu_ threshold pixel_shuffle pixel_unshuffle
    """,
    "torch.nn.functional": """
        relu relu_ relu6 elu elu_ selu selu_ celu celu_ leaky_relu leaky_relu_ prelu rrelu rrelu_ glu gelu logsigmoid
        hardshrink tanhshrink softsign softplus softmin softmax softshrink gumbel_softmax log_softmax tanh sigmoid
        hardsigmoid hardswish hardtanh hardtanh_ silu mish threshold threshold_ normalize batch_norm group_norm
        instance_norm layer_norm rms_norm local_response_norm linear bilinear conv1d conv2d conv3d conv_transpose1d
        conv_transpose2d conv_transpose3d unfold fold avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d
        max_pool3d lp_pool1d lp_pool2d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d dropout dropout1d dropout2d dropout3d
        alpha_dropout feature_alpha_dropout embedding one_hot pairwise_distance cosine_similarity pdist pixel_shuffle
        pixel_unshuffle channel_shuffle pad interpolate upsample grid_sample affine_grid scaled_dot_product_attention
        binary_cross_entropy binary_cross_entropy_with_logits cross_entropy nll_loss kl_div mse_loss l1_loss
        smooth_l1_loss huber_loss triplet_margin_loss cosine_embedding_loss
    """,
    "torch.nn.init": """
        uniform_ normal_ trunc_normal_ constant_ ones_ zeros_ eye_ dirac_ xavier_uniform_ xavier_normal_
        kaiming_uniform_ kaiming_normal_ orthogonal_ sparse_ calculate_gain
    """,
    "math": """
        acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh degrees erf erfc exp expm1 fabs floor fmod gcd
        hypot isclose isfinite isinf isnan ldexp log log10 log1p log2 pow radians sin sinh sqrt tan tanh trunc
    """,
    "operator": """
        abs add and_ eq floordiv ge getitem gt iadd imul invert isub itruediv le lt matmul mod mul ne neg not_ or_ pos
        pow sub truediv truth xor
    """,
    "builtins": "abs bool complex dict float frozenset int len list max min round set str sum tuple",
    "collections": "OrderedDict",
    "timm.layers": """
        swish mish sigmoid tanh hard_swish hard_sigmoid hard_mish gelu gelu_tanh quick_gelu drop_path drop_block_2d
        adaptive_avgmax_pool2d select_adaptive_pool2d
        global_pool_nlc nchw_to nhwc_to resample_abs_pos_embed resample_abs_pos_embed_nhwc resample_patch_embed
        apply_rot_embed apply_rot_embed_cat apply_rot_embed_list apply_keep_indices_nlc pad_same get_padding
        to_2tuple make_divisible pixel_freq_bands trunc_normal_ trunc_normal_tf_ lecun_normal_
        variance_scaling_ conv2d_same
    """,
}


def _resolve() -> dict[str, Any]:
    functions: dict[str, Any] = {}
    for module, names in _LISTS.items():
        home = sys.modules.get(module) or importlib.import_module(module)
        for name in names.split():
            if hasattr(home, name):  # other versions have fewer
                functions[f"{module}:{name}"] = getattr(home, name)
    return functions


_BY_NAME: dict[str, Any] = {}
_BY_ID: dict[int, str] = {}


def _fill() -> None:
    if not _BY_NAME:
        _BY_NAME.update(_resolve())
        for name, function in reversed(_BY_NAME.items()):  # the first name wins
            _BY_ID[id(function)] = name


def function(name: str) -> Any:
    """The listed function of this name, `module:name`; None if it is not in the list."""
    _fill()
    return _BY_NAME.get(name)


def name_of(value: Any) -> str | None:
    """The name of a listed function; None if it is not in the list."""
    _fill()
    name = _BY_ID.get(id(value))
    return name if name is not None and _BY_NAME[name] is value else None
