#include "model/adapter_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace tailor {
namespace {

constexpr std::string_view kA = ".lora_a";
constexpr std::string_view kB = ".lora_b";
constexpr std::string_view kEmbedding = "token_embd.weight";

struct Pair {
  const GgufTensor* a = nullptr;  // {in, rank}
  const GgufTensor* b = nullptr;  // {rank, out}
};
using Sizes = std::array<std::uint64_t, 4>;

Sizes sizes_of(const std::vector<std::uint64_t>& shape) {
  Sizes out{1, 1, 1, 1};
  std::copy_n(shape.begin(), std::min(shape.size(), out.size()), out.begin());
  return out;
}

class AdapterCheck {
 public:
  AdapterCheck(const GgufFile& adapter, const AdapterBase& base) : adapter_(adapter), base_(base) {}

  Status metadata() const {
    TAILOR_CHECK(word("general.type", "adapter"));
    TAILOR_CHECK(word("adapter.type", "lora"));
    TAILOR_CHECK(word("general.architecture", base_.architecture));
    if (const GgufValue* alpha = adapter_.find("adapter.lora.alpha")) {
      if (alpha->type() != GgufType::kF32 || !std::isfinite(*alpha->as_number()))
        return unfit("metadata 'adapter.lora.alpha' is no finite f32");
    }
    // Such a one is meant to begin at certain words; it would change what comes before them too.
    if (adapter_.find("adapter.alora.invocation_tokens") != nullptr)
      return unfit("it is an activated LoRA, which is not supported");
    return {};
  }

  Status tensors() const {
    std::map<std::string, Pair, std::less<>> pairs;
    for (const GgufTensor& tensor : adapter_.tensors()) {
      const std::string_view name = tensor.name;
      const bool a = name.ends_with(kA);
      if (!a && !name.ends_with(kB)) return unfit(fmt::format("{} is no part of an adapter", shown(name)));
      if (!multiplied(tensor.type))
        return unfit(fmt::format("{} is of type {}, which adapters cannot be", shown(name), name_of(tensor.type)));
      Pair& pair = pairs[std::string(name.substr(0, name.size() - kA.size()))];
      (a ? pair.a : pair.b) = &tensor;
    }
    if (pairs.empty()) return unfit("it holds no matrices");
    for (const auto& [name, pair] : pairs) TAILOR_CHECK(fits(name, pair));
    return {};
  }

 private:
  Error unfit(std::string_view what) const {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: cannot be used as an adapter of {}: {}", adapter_.path().string(), base_.name, what),
            "an adapter fits only the model that it was trained on; give a GGUF adapter of this model"};
  }

  Status word(std::string_view key, std::string_view expected) const {
    const GgufValue* value = adapter_.find(key);
    const auto text = value == nullptr ? std::nullopt : value->as_string();
    if (text == expected) return {};
    return unfit(fmt::format("metadata '{}' is not \"{}\"", key, expected));
  }

  /// A name out of the file, as an error may show it.
  static std::string shown(std::string_view name) {
    std::string out(name.substr(0, 64));
    std::replace_if(
        out.begin(), out.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return out;
  }

  static bool multiplied(TensorType type) {
    switch (type) {
      case TensorType::kF32:
      case TensorType::kF16:
      case TensorType::kBF16:
      case TensorType::kQ8_0:
      case TensorType::kQ4_0:
      case TensorType::kQ4_1:
        return true;
    }
    return false;
  }

  /// Encoders and models with a matrix of their own for the output.
  bool embedding_is_read_only_there() const { return base_.encoder || base_.shapes.contains("output.weight"); }

  Status fits(const std::string& name, const Pair& pair) const {
    const auto weight = base_.shapes.find(name);
    if (weight == base_.shapes.end()) return unfit(fmt::format("it changes {}, which the model has not", shown(name)));
    if (pair.a == nullptr || pair.b == nullptr)
      return unfit(fmt::format("one of the two matrices for {} is missing", shown(name)));
    Sizes w = sizes_of(weight->second), a = sizes_of(pair.a->shape);
    const Sizes b = sizes_of(pair.b->shape);
    if (name == kEmbedding) {
      // Rows of `a` are picked by token, so it stands the other way round: {rank, tokens}. llama.cpp takes the same
      // pair for the output where the model has one matrix for both, and ends the process.
      if (!embedding_is_read_only_there())
        return unfit("it changes the words' vectors, which the model has its output from too; merge it into the model");
      std::swap(a[0], a[1]);
      std::swap(w[0], w[1]);
    }
    const bool same = a[0] == w[0] && b[1] == w[1] && a[1] == b[0] && a[2] == w[2] && b[2] == w[2] && a[3] == w[3] &&
                      b[3] == w[3] && weight->second.size() >= 2;
    if (!same) return unfit(fmt::format("its matrices for {} have another shape than the model's", shown(name)));
    if (b[0] > std::max(w[0], w[1]))
      return unfit(fmt::format("its rank of {} for {} is above both sides of the matrix", b[0], shown(name)));
    return {};
  }

  const GgufFile& adapter_;
  const AdapterBase& base_;
};

}  // namespace

AdapterBase AdapterBase::of(const GgufFile& model) {
  AdapterBase out;
  out.name = model.path().filename().string();
  if (auto architecture = model.architecture()) out.architecture = *std::move(architecture);
  const GgufValue* causal = model.find(out.architecture + ".attention.causal");
  out.encoder = causal != nullptr && causal->as_bool() == false;
  for (const GgufTensor& tensor : model.tensors()) out.shapes[tensor.name] = tensor.shape;
  return out;
}

Status check_llama_adapter(const GgufFile& adapter, const AdapterBase& base) {
  const AdapterCheck check(adapter, base);
  TAILOR_CHECK(check.metadata());
  return check.tensors();
}

}  // namespace tailor
