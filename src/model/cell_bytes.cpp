#include "model/cell_bytes.h"

#include <algorithm>
#include <string>
#include <vector>

namespace tailor {
namespace {

/// A number, or one a layer; none where it is absent. The file may not have been checked yet.
std::vector<std::uint64_t> numbers(const GgufFile& model, const std::string& key) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  const GgufValue* value = model.find(key);
  if (value == nullptr) return {};
  std::vector<std::int64_t> found;
  if (const auto one = value->as_integer()) {
    found.push_back(*one);
  } else if (auto many = value->as_integers()) {
    found = std::move(*many);
  }
  std::vector<std::uint64_t> out;
  for (const std::int64_t n : found) out.push_back(static_cast<std::uint64_t>(std::clamp<std::int64_t>(n, 0, kMost)));
  return out;
}

}  // namespace

std::uint64_t cell_bytes(const GgufFile& model, std::uint64_t number_bytes) {
  const auto architecture = model.architecture();
  if (!architecture) return 1;
  const auto number = [&](const char* key, std::uint64_t otherwise) {
    const std::vector<std::uint64_t> found = numbers(model, *architecture + key);
    return found.empty() ? otherwise : found.front();
  };
  const std::uint64_t heads = std::max<std::uint64_t>(1, number(".attention.head_count", 1));
  const std::uint64_t width = number(".embedding_length", 1) / heads;
  const std::uint64_t pair = number(".attention.key_length", width) + number(".attention.value_length", width);
  const std::uint64_t layers = number(".block_count", 1);
  std::vector<std::uint64_t> kv_heads = numbers(model, *architecture + ".attention.head_count_kv");
  if (kv_heads.empty()) kv_heads = numbers(model, *architecture + ".attention.head_count");
  if (kv_heads.empty()) kv_heads = {1};
  std::uint64_t all_heads = 0;
  if (kv_heads.size() == 1) {
    all_heads = layers * kv_heads[0];
  } else {
    for (std::size_t i = 0; i < std::min<std::size_t>(kv_heads.size(), layers); ++i) all_heads += kv_heads[i];
  }
  return std::max<std::uint64_t>(1, all_heads * pair * number_bytes);
}

}  // namespace tailor
