#include "model/merge_adapter.h"

#include <fmt/format.h>

#include <map>

#include "model/changed_model.h"
#include "model/gguf_file.h"

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

Status fold(const GgufTensor& w, const Pair& pair, double alpha, std::vector<float>& values) {
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
  return {};
}

}  // namespace

Status merge_adapter(const fs::path& base, const fs::path& adapter, const fs::path& out, TensorType least) {
  TAILOR_TRY(const GgufFile model, GgufFile::open(base));
  TAILOR_TRY(const GgufFile change, GgufFile::open(adapter));
  TAILOR_TRY(const double alpha, change.number("adapter.lora.alpha"));
  TAILOR_TRY(const Pairs pairs, pairs_of(change, model));
  std::map<std::string, TensorChange, std::less<>> changes;
  for (const auto& [name, pair] : pairs) {
    const GgufTensor* w = model.tensor(name);
    changes[name].apply = [w, pair, alpha](std::vector<float>& values) { return fold(*w, pair, alpha, values); };
  }
  TAILOR_TRY(const bool changed, write_changed_model(model, changes, out, least));
  if (!changed) return unfit(adapter, "folded into the model it changes not one weight");
  return {};
}

}  // namespace tailor
