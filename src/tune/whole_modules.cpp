#include "tune/whole_modules.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/decoder_layout.h"

namespace tailor::tune::decoder {
Result<std::array<KnownModule, 2>> known_modules(const DecoderConfig& config) {
  const auto family = family_of_architecture(config.architecture);
  if (!family) return Error{ErrorCode::kInternal, config.architecture + " has no table of names", ""};
  std::array<KnownModule, 2> known;
  for (const DecoderTensor& tensor : decoder_tensors({.family = *family,
                                     .vocabulary = config.vocab,
                                     .hidden = config.hidden,
                                     .heads = config.heads,
                                     .kv_heads = config.kv_heads,
                                     .head_dim = config.head_dim})) {
    if (tensor.role != TensorRole::kEmbedding && tensor.role != TensorRole::kOutput) continue;
    const auto without_kind = [](const std::string& name) { return name.substr(0, name.rfind('.')); };
    known[tensor.role == TensorRole::kOutput ? 1 : 0] = {without_kind(tensor.gguf), without_kind(tensor.hugging_face)};
  }
  return known;
}

Result<std::vector<WholeModule>> whole_modules(const DecoderConfig& config, bool tied,
                                               const std::vector<std::string>& names) {
  if (names.empty()) return std::vector<WholeModule>();
  TAILOR_TRY(const auto known, known_modules(config));
  std::array<bool, 2> wanted{};
  for (const std::string& name : names) {
    const auto found = std::find_if(known.begin(), known.end(), [&](const KnownModule& k) {
      return name == k.tensor || name == k.hugging_face || name == k.last();
    });
    if (found == known.end()) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("lora.modules_to_save: '{}' cannot be trained whole beside an adapter", name),
          fmt::format("it can hold {} and {}; method full trains every module", known[0].last(), known[1].last())};
    }
    wanted[static_cast<std::size_t>(found - known.begin())] = true;
  }
  std::vector<WholeModule> out;
  if (tied) {
    out.push_back({known[0].tensor + ".weight", {known[0].hugging_face, known[1].hugging_face}});
    return out;
  }
  for (std::size_t i = 0; i < known.size(); ++i) {
    if (wanted[i]) out.push_back({known[i].tensor + ".weight", {known[i].hugging_face}});
  }
  return out;
}

}  // namespace tailor::tune::decoder
