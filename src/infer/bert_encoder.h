#pragma once
/// BERT (Devlin et al., arXiv:1810.04805) and ModernBERT (Warner et al., arXiv:2412.13663) on the CPU in f32, without
/// padding: texts of different lengths share the matrix products and attend each to itself alone. Weights of any GGUF
/// type; they are dequantised once. On one AVX2 core this is faster than llama.cpp's encoder and closer to the
/// reference (exact GELU, no f16); llama.cpp stays for other encoders and for adapters, and is what the tests compare
/// with.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "core/modern_bert.h"
#include "core/result.h"
#include "infer/packed_linear.h"

namespace tailor {

class GgufFile;

/// Immutable; hidden_states() is safe to call from several threads, each with a Scratch of its own.
class BertEncoder {
 public:
  /// Whether the file is a BERT or ModernBERT that this class can compute (others: use llama.cpp).
  static bool supports(const GgufFile& file);
  /// `bottlenecks`: a file of adapters (core/bottleneck_file.h); empty: none.
  static Result<BertEncoder> load(const GgufFile& file, const std::filesystem::path& bottlenecks = {});

  /// Buffers of one thread; they grow to the largest batch and stay.
  struct Scratch {
    std::vector<float> states, queries_keys_values, attended, wide, other, keys, scores, narrow, added, normed;
    std::vector<float> global_turns, local_turns;  // ModernBERT: cosine and sine of each pair, [places, head width]
  };

  /// Last hidden states [tokens of all texts, width], text after text; the span lives until the next call with the
  /// scratch. Ids must be below vocabulary(), texts no longer than max_positions() and not empty. `separator`: tokens
  /// after the first one with this id are of the second text of a pair and have its type; -1: there are no pairs.
  std::span<const float> hidden_states(std::span<const std::span<const std::int32_t>> texts, Scratch& scratch,
                                       std::int32_t separator = -1) const;

  std::size_t width() const { return width_; }
  std::size_t vocabulary() const { return tokens_.size() / width_; }
  std::size_t max_positions() const { return modern_ ? context_ : positions_.size() / width_; }

 private:
  struct Norm {
    std::vector<float> scale, shift;  // no shift: ModernBERT
  };
  struct Bottleneck {
    PackedLinear down, up;
  };
  struct Layer {
    PackedLinear queries_keys_values, attention_out, up, down;
    Norm attention_norm,
        output_norm;  // after these parts; ModernBERT's before them, the first layer has but the second
    std::optional<Bottleneck> after_attention, feed_forward_adapter;
  };
  Status load_tables(const GgufFile& file);
  Status load_bert_layers(const GgufFile& file, std::size_t layers, std::size_t hidden);
  Status load_modern_layers(const GgufFile& file, std::size_t layers, std::size_t hidden);
  Status load_bottlenecks(const std::filesystem::path& file);
  /// states += what the adapter makes of `x`.
  void add_bottleneck(const Bottleneck& adapter, const float* x, float* states, std::size_t rows, Scratch& s) const;
  void normalise(const Norm& norm, const float* residual, float* states, std::size_t rows) const;
  /// `reach`: a token sees so many to either side; -1: all of its text.
  void attend(std::span<const std::span<const std::int32_t>> texts, std::ptrdiff_t reach, Scratch& scratch) const;
  void bert_layers(std::span<const std::span<const std::int32_t>> texts, std::size_t rows, Scratch& s) const;
  void modern_layers(std::span<const std::span<const std::int32_t>> texts, std::size_t rows, Scratch& s) const;
  /// Turns queries and keys by the places of their tokens.
  void turn(std::span<const std::span<const std::int32_t>> texts, const std::vector<float>& turns, Scratch& s) const;

  std::size_t width_ = 0, heads_ = 0, context_ = 0;
  std::optional<ModernBertLayers> modern_;  // not empty: a ModernBERT
  float epsilon_ = 1e-12f;
  float adapter_scale_ = 1;
  bool adapter_gelu_ = false, adapter_parallel_ = false;
  std::vector<float> tokens_, positions_;  // positions include the row of token type 0
  std::vector<float> second_type_;         // row of token type 1 less that of type 0; empty: the model has one type
  Norm embedding_norm_, final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace tailor
