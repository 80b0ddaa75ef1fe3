#include "model/decoder_file.h"

#include <fmt/format.h>

namespace tailor {

Result<DecoderSizes> decoder_sizes(const GgufFile& file) {
  TAILOR_TRY(const std::string arch, file.architecture());
  const auto family = family_of_architecture(arch);
  if (!family) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the architecture is '{}', which is not a supported decoder", file.path().string(),
                             arch.substr(0, 64)),
                 ""};
  }
  const auto whole = [&](const char* key) { return file.integer(arch + "." + key); };
  const auto whole_or = [&](const char* key, std::int64_t otherwise) {
    const GgufValue* value = file.find(arch + "." + key);
    return value == nullptr ? otherwise : value->as_integer().value_or(otherwise);
  };
  DecoderSizes s;
  s.family = *family;
  const GgufTensor* embedding = file.tensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor 'token_embd.weight' is missing", file.path().string()), ""};
  }
  s.vocabulary = static_cast<std::int64_t>(embedding->shape[1]);
  TAILOR_TRY(s.hidden, whole("embedding_length"));
  TAILOR_TRY(s.layers, whole("block_count"));
  TAILOR_TRY(s.feed_forward, whole("feed_forward_length"));
  TAILOR_TRY(s.heads, whole("attention.head_count"));
  if (s.hidden < 1 || s.layers < 1 || s.feed_forward < 1 || s.heads < 1) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: a size in the metadata is not positive", file.path().string()), ""};
  }
  s.kv_heads = whole_or("attention.head_count_kv", s.heads);
  s.head_dim = whole_or("attention.key_length", s.hidden / s.heads);
  if (s.kv_heads < 1 || s.head_dim < 1 || s.heads % s.kv_heads != 0) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: {} attention heads cannot share {} key-value heads", file.path().string(), s.heads,
                             s.kv_heads),
                 ""};
  }
  if (const GgufTensor* positions = file.tensor("position_embd.weight"); positions && positions->shape.size() == 2) {
    s.positions = static_cast<std::int64_t>(positions->shape[1]);
  }
  s.tied_output = file.tensor("output.weight") == nullptr;
  s.attention_bias = s.family == DecoderFamily::kLlama && file.tensor("blk.0.attn_q.bias") != nullptr;
  s.feed_forward_bias = s.family == DecoderFamily::kLlama && file.tensor("blk.0.ffn_up.bias") != nullptr;
  s.two_norms = file.tensor("blk.0.attn_norm_2.weight") != nullptr;
  return s;
}

}  // namespace tailor
