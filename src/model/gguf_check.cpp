#include "model/gguf_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_set>

#include "core/decoder_layout.h"

namespace tailor {
namespace {

constexpr std::int64_t kMaxLayers = 512;   // LLAMA_MAX_LAYERS
constexpr std::int64_t kMaxExperts = 512;  // below LLAMA_MAX_EXPERTS
constexpr std::int64_t kMaxSize = std::int64_t{1} << 30;

Error bad(const GgufFile& file, std::string_view what) {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", file.path().string(), what),
          "the file is damaged or was made by a faulty converter; use another"};
}

/// An integer, or an array of one integer a layer; each within [low, high]. Absent is fine unless `required`.
Status check_range(const GgufFile& file, const std::string& key, std::int64_t low, std::int64_t high, bool required,
                   std::int64_t layers = 0) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) {
    if (required) return bad(file, fmt::format("metadata '{}' is missing", key));
    return {};
  }
  std::vector<std::int64_t> numbers;
  if (const auto one = value->as_integer()) {
    numbers.push_back(*one);
  } else if (auto many = value->as_integers(); many && layers > 0) {
    if (static_cast<std::int64_t>(many->size()) < layers) {
      return bad(file, fmt::format("metadata '{}' has {} values for {} layers", key, many->size(), layers));
    }
    numbers = std::move(*many);
  } else {
    return bad(file, fmt::format("metadata '{}' is not a whole number", key));
  }
  for (const std::int64_t n : numbers) {
    if (n < low || n > high) return bad(file, fmt::format("metadata '{}' is {}, expected {} to {}", key, n, low, high));
  }
  return {};
}

std::int64_t integer_or(const GgufFile& file, const std::string& key, std::int64_t otherwise) {
  const GgufValue* value = file.find(key);
  return value != nullptr ? value->as_integer().value_or(otherwise) : otherwise;
}

Status check_sizes(const GgufFile& file, const std::string& arch) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", arch, name); };
  TAILOR_CHECK(check_range(file, key("block_count"), 1, kMaxLayers, true));
  const std::int64_t layers = integer_or(file, key("block_count"), 1);
  TAILOR_CHECK(check_range(file, key("context_length"), 1, kMaxSize, true));
  TAILOR_CHECK(check_range(file, key("embedding_length"), 1, kMaxSize, true));
  TAILOR_CHECK(check_range(file, key("feed_forward_length"), 1, kMaxSize, false, layers));
  // Layers without attention have no heads; only models of one kind of layer must have some.
  const bool plain = arch == "bert" || arch == "modern-bert" || family_of_architecture(arch);
  TAILOR_CHECK(check_range(file, key("attention.head_count"), plain ? 1 : 0, 1 << 16, plain, layers));
  TAILOR_CHECK(check_range(file, key("attention.head_count_kv"), plain ? 1 : 0, 1 << 16, false, layers));
  TAILOR_CHECK(check_range(file, key("attention.key_length"), 1, kMaxSize, false));
  TAILOR_CHECK(check_range(file, key("attention.value_length"), 1, kMaxSize, false));
  TAILOR_CHECK(check_range(file, key("rope.dimension_count"), 1, kMaxSize, false));
  TAILOR_CHECK(check_range(file, key("pooling_type"), 0, 4, false));
  const std::int64_t heads = integer_or(file, key("attention.head_count"), 1);
  const std::int64_t kv_heads = integer_or(file, key("attention.head_count_kv"), heads);
  if (plain && heads % kv_heads != 0) {
    return bad(file, fmt::format("{} attention heads cannot share {} key-value heads", heads, kv_heads));
  }
  if (plain && integer_or(file, key("embedding_length"), 0) % heads != 0 &&
      file.find(key("attention.key_length")) == nullptr) {
    return bad(file, fmt::format("embedding_length is not a multiple of {} attention heads", heads));
  }
  const std::int64_t experts = integer_or(file, key("expert_count"), 0);
  TAILOR_CHECK(check_range(file, key("expert_count"), 0, kMaxExperts, false));
  TAILOR_CHECK(check_range(file, key("expert_used_count"), experts > 0 ? 1 : 0, experts, experts > 0, layers));
  TAILOR_CHECK(check_range(file, key("expert_group_count"), 0, std::max<std::int64_t>(experts - 1, 0), false));
  const std::int64_t groups = integer_or(file, key("expert_group_count"), 0);
  if (groups > 1 && experts % groups != 0) return bad(file, "the experts do not divide into expert_group_count groups");
  if (groups > 1) TAILOR_CHECK(check_range(file, key("expert_group_used_count"), 1, groups - 1, true));
  TAILOR_CHECK(check_range(file, key("nextn_predict_layers"), 0, layers, false));
  if (const GgufValue* scaling = file.find(key("rope.scaling.type"))) {
    const auto text = scaling->as_string();
    if (!text || (*text != "none" && *text != "linear" && *text != "yarn" && *text != "longrope")) {
      return bad(file, "metadata 'rope.scaling.type' is not one of none, linear, yarn, longrope");
    }
  }
  return {};
}

/// SentencePiece's character map is read by llama.cpp with the lengths it claims.
Status check_character_map(const GgufFile& file) {
  const GgufValue* map = file.find("tokenizer.ggml.precompiled_charsmap");
  if (map == nullptr) return {};
  const bool bytes =
      map->type() == GgufType::kArray && (map->element_type() == GgufType::kU8 || map->element_type() == GgufType::kI8);
  if (!bytes) return bad(file, "metadata 'tokenizer.ggml.precompiled_charsmap' is not an array of bytes");
  if (map->count() == 0) return {};
  const std::string_view data = std::string_view(map->encoded()).substr(12);
  std::uint32_t table = 0;
  if (data.size() >= 4) std::memcpy(&table, data.data(), 4);
  if (data.size() < 4 || table % 4 != 0 || table > data.size() - 4 || data.back() != '\0') {
    return bad(file, "metadata 'tokenizer.ggml.precompiled_charsmap' does not follow its format");
  }
  return {};
}

Status check_vocabulary(const GgufFile& file) {
  TAILOR_TRY(const std::string model, file.string("tokenizer.ggml.model"));
  if (model == "none" || model == "no_vocab") return bad(file, "the model has no vocabulary");
  const GgufValue* list = file.find("tokenizer.ggml.tokens");
  const auto tokens = list != nullptr ? list->as_strings() : std::nullopt;
  if (!tokens || tokens->empty()) return bad(file, "metadata 'tokenizer.ggml.tokens' is missing or no list of strings");
  std::unordered_set<std::string> seen;
  seen.reserve(tokens->size());
  for (std::size_t i = 0; i < tokens->size(); ++i) {
    // llama.cpp gives empty tokens this name.
    std::string token = (*tokens)[i].empty() ? fmt::format("[EMPTY_{}]", i) : std::string((*tokens)[i]);
    if (token.find('\0') != std::string::npos) return bad(file, fmt::format("token {} holds a zero byte", i));
    if (!seen.insert(std::move(token)).second) return bad(file, fmt::format("token {} is in the vocabulary twice", i));
  }
  for (const char* key : {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"}) {
    const GgufValue* value = file.find(key);
    if (value == nullptr) continue;
    if (value->type() != GgufType::kArray || value->element_type() == GgufType::kString ||
        value->count() < tokens->size()) {
      return bad(file,
                 fmt::format("metadata '{}' does not have one number for each of the {} tokens", key, tokens->size()));
    }
  }
  const auto last = static_cast<std::int64_t>(tokens->size()) - 1;
  for (const char* name : {"bos", "eos", "unknown", "seperator", "padding", "cls", "mask", "eot", "eom"}) {
    TAILOR_CHECK(check_range(file, fmt::format("tokenizer.ggml.{}_token_id", name), 0, last, false));
  }
  if (const GgufValue* merges = file.find("tokenizer.ggml.merges"); merges != nullptr && !merges->as_strings()) {
    return bad(file, "metadata 'tokenizer.ggml.merges' is not a list of strings");
  }
  return check_character_map(file);
}

}  // namespace

Status check_llama_metadata(const GgufFile& file) {
  TAILOR_TRY(const std::string arch, file.architecture());
  if (arch.empty() || arch.size() > 64) return bad(file, "metadata 'general.architecture' is not a name");
  if (const std::int64_t parts = integer_or(file, "split.count", 1); parts > 1) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: this is one of {} parts of a split model", file.path().string(), parts),
                 "join them with llama.cpp's gguf-split --merge"};
  }
  TAILOR_CHECK(check_sizes(file, arch));
  return check_vocabulary(file);
}

}  // namespace tailor
