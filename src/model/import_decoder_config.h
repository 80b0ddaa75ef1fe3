#pragma once
/// What config.json of a Hugging Face directory says of a decoder, as sizes and as llama.cpp's metadata.

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/decoder_layout.h"
#include "core/json.h"
#include "core/result.h"
#include "model/gguf_file.h"

namespace tailor {

struct DecoderConfig {
  DecoderSizes sizes;
  std::string model_type;    // as config.json has it: "mistral"
  std::int64_t context = 0;  // positions the model was made for
  /// Keys with "<architecture>." before them, in the order and with the types of llama.cpp's converter. Beyond what
  /// that writes: the rotary base of GPT-NeoX and Falcon, their true feed-forward length, Gemma 3's pattern of windows
  /// where it is not one full layer in six.
  std::vector<std::pair<std::string, GgufValue>> metadata;
  /// Factors that rotary frequencies are divided by, head_dim / 2 each; empty: none. Llama 3 has one set, Phi-3's long
  /// models have two (llama.cpp takes `rope_long` for contexts beyond the original length).
  std::vector<float> rope_freqs, rope_long, rope_short;
};

/// Whether config.json names a decoder's model type (see decoder_model_types()); false where it cannot be read.
bool is_decoder_directory(const std::filesystem::path& dir);

/// Reads and checks config.json. One sentence for each of: an absent or broken file, another model type, a head other
/// than the one that predicts tokens, weights that are quantised (bitsandbytes, GPTQ, AWQ, …), mixtures of experts,
/// and options of a family that llama.cpp does not compute (an activation, ALiBi in Falcon, scaled attention in GPT-2,
/// a sliding window in Qwen, …). Windows that llama.cpp ignores (Mistral, Phi-3) are let through: within the window the
/// results are the same.
Result<DecoderConfig> read_decoder_config(const std::filesystem::path& dir);

}  // namespace tailor
