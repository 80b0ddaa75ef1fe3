#pragma once
/// infer/attention.h inside of llama.cpp: a ggml device (of the kind that BLAS libraries are) which takes over the
/// attention of contexts with flash attention and 16-bit keys and values; everything else stays where it was.

namespace tailor {

/// Before the first context is made; more calls do nothing. Threads: any.
void use_own_attention();

}  // namespace tailor
