#pragma once
/// The file of an encoder's bottleneck adapters, written by tailor-tune and read where the encoder is served: a
/// safetensors file with, for each layer N that has one, "blk.N.adapter_attn" (after attention) and "blk.N.adapter_ffn"
/// (after feed-forward, or beside it), each with ".down.weight" [size, width], ".down.bias" [size], ".up.weight"
/// [width, size], ".up.bias" [width], all F32.
///   y = base + scale * (act(x down^T + down_bias) up^T + up_bias);  base and x are the part's output; with the place
///   "parallel", x is the feed-forward part's input. act is exact GELU where the place is "houlsby", else ReLU.
/// Metadata: format = "tailor-bottlenecks", version = "1", place, scale.

#include <string_view>

namespace tailor {

inline constexpr const char* kBottleneckFile = "bottlenecks.safetensors";
inline constexpr const char* kBottleneckFormat = "tailor-bottlenecks";
inline constexpr std::string_view kPlaceHoulsby = "houlsby", kPlacePfeiffer = "pfeiffer", kPlaceParallel = "parallel";

}  // namespace tailor
