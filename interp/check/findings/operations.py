"""Operations that mix positions, by kind, and what is said of each kind once an experiment has shown it."""

STATISTICS = "take statistics over features, or over the past only"
PROVEN = "; with its result taken from an unchanged run the leak is gone"

KINDS = {  # kind → (operations, cause, fix)
    "statistic": (
        "mean sum std var std_mean var_mean amax amin max min norm linalg_norm linalg_vector_norm logsumexp normalize "
        "median prod aminmax nanmean",
        "{operations} over positions: the statistic counts what may not be seen" + PROVEN,
        STATISTICS,
    ),
    "softmax": (
        "softmax log_softmax special_softmax special_log_softmax softmin gumbel_softmax",
        "a softmax over positions: its normaliser sees what an output may not" + PROVEN,
        "divide the running sum of exp(score) · value by the running sum of exp(score), or mask the scores",
    ),
    "norm": (
        "batch_norm instance_norm group_norm layer_norm rms_norm local_response_norm",
        "{operations} over positions: its statistics count what may not be seen" + PROVEN,
        "normalise each position by itself (LayerNorm over features)",
    ),
    "convolution": (
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d",
        "a convolution reads beyond what its output may see" + PROVEN,
        "pad on the left by (kernel − 1)·dilation only",
    ),
    "window": (
        "unfold im2col as_strided",
        "windows over positions reach beyond what their output may see" + PROVEN,
        "let a window end where its output stands",
    ),
    "pad": (
        "pad",
        "{operations} padding: what it adds at the edge is made of samples that an output there may not see; with "
        "zeros in its place the leak is gone",
        'pad with zeros: F.pad(x, (left, 0)), mode="constant"',
    ),
    "pool": (
        "avg_pool1d max_pool1d avg_pool2d max_pool2d lp_pool1d adaptive_avg_pool1d adaptive_max_pool1d "
        "adaptive_avg_pool2d max_pool1d_with_indices",
        "pooling reaches beyond what its output may see" + PROVEN,
        "pool over the past only",
    ),
    "product": (
        "matmul __matmul__ __rmatmul__ bmm mm einsum linear baddbmm tensordot mv",
        "a product along positions is not masked to what an output may see" + PROVEN,
        "apply it along features, or mask its weights to what each output may see",
    ),
    "recurrence": (
        "lstm gru rnn_tanh rnn_relu",
        "a bidirectional recurrence reads backwards" + PROVEN,
        "use bidirectional=False",
    ),
    "turn": ("flip roll fliplr", "{operations} moves later positions to earlier ones" + PROVEN, "leave time in order"),
    "fourier": (
        "fft_fft fft_rfft fft_ifft fft_irfft fft_fft2 fft_rfft2 fft_irfft2 fft_hfft stft istft",
        "a Fourier transform over positions reaches those that an output may not see" + PROVEN,
        "of a convolution, pad with zeros to twice the length; of frames, let them end where their output stands",
    ),
    "interpolation": (
        "interpolate upsample grid_sample",
        "interpolation reads its neighbours on both sides" + PROVEN,
        "repeat past values instead",
    ),
    "running": (
        "cumsum cumprod cummax cummin logcumsumexp",
        "{operations} runs over positions that an output may not see" + PROVEN,
        "let it run over the past only",
    ),
    "choice": (
        "topk sort argsort argmax argmin kthvalue unique bincount multinomial msort searchsorted",
        "{operations} looks at every position to decide about one; with its choice taken from an unchanged run the "
        "leak is gone",
        "choose for each position from its own past, or say that the model is not causal",
    ),
    "attention": (
        "scaled_dot_product_attention multi_head_attention_forward flex_attention",
        "this attention sees keys that its mask should hide" + PROVEN,
        "mask them: is_causal=True, or a mask of what each query may see",
    ),
}
KIND_OF = {name: kind for kind, (names, _, _) in KINDS.items() for name in names.split()}
CHOOSES = {name for name, kind in KIND_OF.items() if kind == "choice"}
