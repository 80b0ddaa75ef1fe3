#include "model/merge_adapter.h"

#include <fmt/format.h>

#include <map>

#include "model/gguf_file.h"
#include "model/gguf_writer.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kA = ".lora_a";
constexpr std::string_view kB = ".lora_b";

struct Pair {
  const GgufTensor* a = nullptr;  // {in, r}
  const GgufTensor* b = nullptr;  // {r, out}
};

using Pairs = std::map<std::string, Pair, std::less<>>;

Error unfit(const fs::path& adapter, std::string what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", adapter.string(), what),
          "an adapter fits only the model that it was trained on, after it was trained"};
}

Result<Pairs> pairs_of(const GgufFile& adapter, const GgufFile& base) {
  Pairs pairs;
  for (const GgufTensor& tensor : adapter.tensors()) {
    const std::string_view name = tensor.name;
    const bool a = name.ends_with(kA);
    if (!a && !name.ends_with(kB)) return unfit(adapter.path(), fmt::format("{} is no part of an adapter", name));
    Pair& pair = pairs[std::string(name.substr(0, name.size() - kA.size()))];
    (a ? pair.a : pair.b) = &tensor;
  }
  for (const auto& [name, pair] : pairs) {
    const GgufTensor* w = base.tensor(name);
    if (w == nullptr) return unfit(adapter.path(), fmt::format("it changes {}, which the model has not", name));
    if (pair.a == nullptr || pair.b == nullptr)
      return unfit(adapter.path(), fmt::format("one of the two matrices for {} is missing", name));
    const auto &a = pair.a->shape, &b = pair.b->shape;
    if (w->shape.size() != 2 || a.size() != 2 || b.size() != 2 || a[0] != w->shape[0] || b[1] != w->shape[1] ||
        a[1] != b[0]) {
      return unfit(adapter.path(), fmt::format("its matrices for {} have another shape than the model's", name));
    }
  }
  return pairs;
}

/// `changed`: whether a weight differs in the type that it is written in.
Result<std::vector<float>> folded(const GgufTensor& w, const Pair& pair, double alpha, TensorType as, bool& changed) {
  TAILOR_TRY(std::vector<float> values, to_f32(w));
  TAILOR_TRY(const std::vector<float> a, to_f32(*pair.a));
  TAILOR_TRY(const std::vector<float> b, to_f32(*pair.b));
  const std::size_t in = w.shape[0], out = w.shape[1], rank = pair.a->shape[1];
  const double scale = alpha / static_cast<double>(rank);
  for (std::size_t o = 0; o < out; ++o) {
    float* row = values.data() + o * in;
    for (std::size_t r = 0; r < rank; ++r) {
      const auto factor = static_cast<float>(scale * b[o * rank + r]);
      const float* from = a.data() + r * in;
      for (std::size_t i = 0; i < in; ++i) row[i] += factor * from[i];
    }
  }
  if (!changed) {
    TAILOR_TRY(const std::vector<float> before, to_f32(w));
    TAILOR_TRY(const std::string old_bytes, encode_tensor(as, before, in));
    TAILOR_TRY(const std::string new_bytes, encode_tensor(as, values, in));
    changed = old_bytes != new_bytes;
  }
  return values;
}

bool is_whole(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16;
}

}  // namespace

Status merge_adapter(const fs::path& base, const fs::path& adapter, const fs::path& out) {
  TAILOR_TRY(const GgufFile model, GgufFile::open(base));
  TAILOR_TRY(const GgufFile change, GgufFile::open(adapter));
  TAILOR_TRY(const double alpha, change.number("adapter.lora.alpha"));
  TAILOR_TRY(const Pairs pairs, pairs_of(change, model));
  bool changed = false;
  GgufWriter writer;
  for (const auto& [key, value] : model.values()) writer.set(key, value);
  for (const GgufTensor& tensor : model.tensors()) {
    const auto found = pairs.find(tensor.name);
    if (found == pairs.end()) {
      writer.add_raw(tensor.name, tensor.type, tensor.shape,
                     [&tensor]() -> Result<std::string_view> { return tensor.bytes; });
    } else {
      const Pair pair = found->second;
      const TensorType as = is_whole(tensor.type) ? tensor.type : TensorType::kF16;
      writer.add(tensor.name, as, tensor.shape,
                 [&tensor, &changed, pair, alpha, as] { return folded(tensor, pair, alpha, as, changed); });
    }
  }
  TAILOR_CHECK(writer.write(out));
  if (changed) return {};
  std::error_code ignored;
  fs::remove(out, ignored);
  return unfit(adapter, "folded into the model it changes not one weight");
}

}  // namespace tailor
