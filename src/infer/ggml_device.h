#pragma once
/// infer/attention.h and infer/packed_matrix.h inside of llama.cpp: a ggml device (of the kind that BLAS libraries are)
/// which takes over the attention of contexts with flash attention and 16-bit keys and values, and products with
/// quantized weights that lie in memory as they lie in the file; everything else stays where it was.

namespace tailor {

/// Before the first context is made; more calls do nothing. Threads: any.
void use_own_kernels();

/// Whether contexts that this thread calls leave attention to us; at first they do not. For contexts with many
/// sequences, where it is several times as fast as ggml's. Last digits depend on the tokens beside a token, unless
/// `shared_cells` is 0 or more (AttentionCall::shared_cells).
void set_own_attention(bool on, int shared_cells = -1);

/// What contexts that this thread calls compute with our kernels uses so many threads, where the context has fewer. A
/// step of few tokens is fastest so: the small operations between the products are not worth waiting for each other.
void set_kernel_threads(int threads);

}  // namespace tailor
