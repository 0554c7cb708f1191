"""Ops that have no rule, and of which something is known all the same: channels that enter one stay."""

from __future__ import annotations

from ...ops.record import OPS, OpRecord

_COMPUTE = """
    addbmm addmv addr bartlett_window bilinear binary_cross_entropy binary_cross_entropy_with_logits
    blackman_window block_diag bucketize cdist cholesky conv_tbc corrcoef cosine_embedding_loss cov cross
    cumulative_trapezoid det diag diag_embed diagonal_scatter diff dist embedding_bag erfinv exponential
    fake_quantize_per_channel_affine fake_quantize_per_tensor_affine fft_fftfreq fft_fftshift fft_hfft
    fft_ifftshift fft_ihfft fft_rfftfreq fmax fmin frobenius_norm geometric ger hamming_window hann_window histc
    huber_loss i0 igamma igammac inner inverse isclose isin isneginf isposinf isreal istft kl_div kron l1_loss
    ldexp linalg_cross linalg_det linalg_inv linalg_matmul linalg_matrix_norm linalg_multi_dot linalg_pinv
    linalg_qr linalg_solve linalg_svd linalg_svdvals linalg_vecdot log_normal logdet logspace
    margin_ranking_loss masked_scatter matrix_exp matrix_power max_pool3d_with_indices mse_loss multinomial
    mvlgamma nanquantile native_dropout native_group_norm native_layer_norm nll_loss nll_loss2d nll_loss_nd
    norm_except_dim normal one_hot outer pairwise_distance pdist pinverse poisson polygamma qr quantile randint
    random randperm renorm select_scatter slice_scatter smooth_l1_loss special_entr special_erfcx special_erfinv
    special_expm1 special_gammaln special_i0 special_i1 special_log1p special_log_ndtr special_log_softmax
    special_logit special_logsumexp special_ndtr special_ndtri special_psi special_round special_softmax
    special_xlog1py stft svd sym_numel sym_size take tensordot trace trapezoid trapz tril_indices triu_indices
    uniform vander
"""
# What reads memory that its arguments do not hold: at any offset, in other storage; and kernels that trust sizes.
_TRUST = """
    as_strided as_strided_scatter set resize resize_as from_file _native_batch_norm_legit native_batch_norm
    _cudnn_rnn mkldnn_rnn_layer
"""

for name in _COMPUTE.split():
    OPS.add(OpRecord(name))
for name in _TRUST.split():
    OPS.add(OpRecord(name, trusts=True))
OPS.add(OpRecord("affine_grid_generator", sizes=("size",)))
