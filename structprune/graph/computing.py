"""The ops that compute a tensor from their arguments, and do nothing else: those that a program may hold.

They are those that have a rule (a user's own included) and those listed here. Not among them is what reads memory that
its arguments do not hold, whether or not it has a rule: `as_strided` and `_reshape_alias` (any offset), `set_` and
`resize_` (other storage), `from_file`, and kernels that trust sizes (`native_batch_norm`).
"""

from __future__ import annotations

import torch

from ..ops import op_name
from .rules import RULES

_TRUSTING = """
    _reshape_alias _unsafe_view as_strided as_strided_scatter empty_strided set resize resize_as from_file
    _native_batch_norm_legit_no_training _native_batch_norm_legit native_batch_norm cudnn_batch_norm _cudnn_rnn
    mkldnn_rnn_layer
"""
_COMPUTES = """
        _unique2 addbmm addmv addr affine_grid_generator argwhere bartlett_window bilinear binary_cross_entropy
        binary_cross_entropy_with_logits bincount blackman_window block_diag bucketize cdist cholesky conv_tbc
        corrcoef cosine_embedding_loss cov cross cumulative_trapezoid det diag diag_embed diagonal_scatter diff
        dist embedding_bag erfinv exponential fake_quantize_per_channel_affine fake_quantize_per_tensor_affine
        fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_ifftn fft_ifftshift fft_ihfft fft_irfftn fft_rfftfreq
        fft_rfftn fmax fmin frobenius_norm geometric ger hamming_window hann_window histc huber_loss i0 igamma
        igammac inner inverse isclose isin isneginf isposinf isreal istft kl_div kron l1_loss ldexp linalg_cross
        linalg_det linalg_diagonal linalg_inv linalg_matmul linalg_matrix_norm linalg_multi_dot linalg_pinv
        linalg_qr linalg_solve linalg_svd linalg_svdvals linalg_vecdot log_normal logdet logspace
        margin_ranking_loss masked_scatter masked_select matrix_exp matrix_power max_pool3d_with_indices mse_loss
        msort multinomial mvlgamma nanquantile native_dropout native_group_norm native_layer_norm nll_loss
        nll_loss2d nll_loss_nd nonzero norm_except_dim normal one_hot outer pairwise_distance pdist pinverse
        poisson polygamma qr quantile randint random randperm reflection_pad3d renorm replication_pad3d rot90
        select_scatter slice_scatter smooth_l1_loss special_entr special_erfcx special_erfinv special_expm1
        special_gammaln special_i0 special_i1 special_log1p special_log_ndtr special_log_softmax special_logit
        special_logsumexp special_ndtr special_ndtri special_psi special_round special_softmax special_xlog1py
        stft svd sym_numel sym_size take tensordot trace trapezoid trapz tril_indices triu_indices uniform
        unique_consecutive unique_dim vander
"""


def refused(overload: torch._ops.OpOverload) -> str:
    """Why a program may not hold an op; empty where it may."""
    name = op_name(overload)
    if name in _TRUSTING.split():
        return "is no op of a network: it reads memory that its arguments may not hold"
    if any(argument.is_out for argument in overload._schema.arguments):
        return "is no op of a network: it writes into a tensor that it is given"
    if name not in RULES and name not in _COMPUTES.split():
        return "is no op of a network that is known here: it has no rule and is not among those that only compute"
    return ""
