#include "model/merge_peft.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "core/decoder_layout.h"
#include "core/files.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "model/changed_model.h"
#include "model/decoder_file.h"
#include "model/model_weights.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kOutput = "lm_head";

/// What the adapter does to one module.
struct Update {
  const SafeTensor* a = nullptr;          // [r, in]
  const SafeTensor* b = nullptr;          // [out, r]
  const SafeTensor* magnitude = nullptr;  // [out]: DoRA
  const SafeTensor* scale = nullptr;      // IA3: [out, 1], or [1, in] of a feed-forward module
};

struct Part {
  std::string_view suffix;
  const SafeTensor* Update::*place;
};
constexpr Part kParts[] = {{".lora_A.weight", &Update::a},
                           {".lora_B.weight", &Update::b},
                           {".lora_magnitude_vector.weight", &Update::magnitude},
                           {".lora_magnitude_vector", &Update::magnitude},
                           {".ia3_l", &Update::scale}};

std::string without(std::string name, std::string_view part) {
  if (const auto at = name.find(part); at != std::string::npos) name.erase(at, part.size());
  return name;
}

std::string shown(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

class PeftAdapter {
 public:
  explicit PeftAdapter(fs::path directory) : directory_(std::move(directory)) {}

  Status read_config() {
    TAILOR_TRY(config_, read_json(directory_ / "adapter_config.json"));
    if (!config_.is_object()) return unfit("adapter_config.json is no object");
    const std::string type = text("peft_type");
    if (type != "LORA" && type != "IA3")
      return unfit(fmt::format("its peft_type is '{}'; LORA and IA3 can be folded into a model", type));
    const std::string start = text("init_lora_weights");
    for (const char* residual : {"pissa", "olora", "corda", "loftq"}) {
      if (start.starts_with(residual))
        return unfit(
            fmt::format("it begins as {} and fits the rest that PEFT left of the base, not the base itself; "
                        "save it with path_initial_model_for_weight_conversion",
                        start));
    }
    for (const char* pattern : {"alpha_pattern", "rank_pattern"}) {
      const Json given = config_.value(pattern, Json());
      if (!given.is_null() && !given.is_object()) return unfit(fmt::format("{} is no object", pattern));
    }
    return {};
  }

  Status open_weights() {
    const fs::path file = directory_ / "adapter_model.safetensors";
    std::error_code ignored;
    if (!fs::exists(file, ignored) && fs::exists(directory_ / "adapter_model.bin", ignored))
      return unfit("its weights are a pickle, adapter_model.bin; save it with safe_serialization=True");
    TAILOR_TRY(SafetensorsFile opened, SafetensorsFile::open(file));
    weights_.emplace(std::move(opened));
    return {};
  }

  /// By GGUF name.
  Result<std::map<std::string, TensorChange, std::less<>>> changes(const GgufFile& model) const {
    TAILOR_TRY(const DecoderSizes sizes, decoder_sizes(model));
    std::map<std::string, DecoderModule> modules;
    for (DecoderModule& m : decoder_modules(sizes)) modules.emplace(m.hugging_face, std::move(m));
    std::map<std::string, DecoderTensor> tensors;
    for (DecoderTensor& t : decoder_tensors(sizes)) tensors.emplace(t.hugging_face, std::move(t));

    std::map<std::string, Update> updates;
    std::map<std::string, TensorChange, std::less<>> out;
    for (const SafeTensor& tensor : weights_->tensors()) {
      if (!tensor.name.starts_with(kPrefix))
        return unfit(fmt::format("{} does not begin with {}", tensor.name, kPrefix));
      std::string name = tensor.name.substr(kPrefix.size());
      if (!is_float(tensor)) return unfit(fmt::format("{} is {}; numbers are expected", tensor.name, tensor.type));
      const Part* part = nullptr;
      for (const Part& p : kParts) part = part == nullptr && name.ends_with(p.suffix) ? &p : part;
      if (part != nullptr) {
        const std::string module = full_name(name.substr(0, name.size() - part->suffix.size()), sizes.family, modules);
        if (!modules.contains(module)) return unfit(fmt::format("it changes {}, which the model has not", module));
        updates[module].*(part->place) = &tensor;
        continue;
      }
      TAILOR_CHECK(
          add_whole(tensor, without(without(std::move(name), ".base_layer"), ".modules_to_save"), sizes, tensors, out));
    }
    for (const auto& [name, update] : updates) {
      TAILOR_CHECK(check(name, modules.at(name), update));
      TAILOR_CHECK(add_update(name, modules.at(name), update, model, out));
    }
    if (out.empty()) return unfit("it holds no tensor");
    return out;
  }

  Error unfit(const std::string& what) const {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", directory_.string(), what),
            "an adapter fits only the model that it was trained on"};
  }

 private:
  std::string text(const char* key) const {
    const Json value = config_.value(key, Json());
    return value.is_string() ? value.get<std::string>() : std::string();
  }
  bool flag(const char* key) const {
    const Json value = config_.value(key, Json());
    return value.is_boolean() && value.get<bool>();
  }
  static bool is_float(const SafeTensor& t) {
    return t.type == "F32" || t.type == "F16" || t.type == "BF16" || t.type == "F64";
  }

  /// Adapters of a bare model (task_type FEATURE_EXTRACTION) leave out what stands before its layers.
  template <typename Known>
  static std::string full_name(const std::string& name, DecoderFamily family, const Known& known) {
    const std::string longer = std::string(base_prefix(family)) + name;
    return !known.contains(name) && known.contains(longer) ? longer : name;
  }

  /// As PEFT looks a module up: the first key that is the module's path or the end of it.
  std::optional<double> by_pattern(const char* pattern, const std::string& module) const {
    const Json given = config_.value(pattern, Json());
    if (!given.is_object()) return {};
    for (const auto& [key, value] : given.items()) {
      if ((module == key || module.ends_with("." + key)) && value.is_number()) return value.get<double>();
    }
    return {};
  }

  Status add_whole(const SafeTensor& tensor, const std::string& given, const DecoderSizes& sizes,
                   const std::map<std::string, DecoderTensor>& tensors,
                   std::map<std::string, TensorChange, std::less<>>& out) const {
    const std::string name = full_name(given, sizes.family, tensors);
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      if (sizes.tied_output && name.starts_with(kOutput))
        return unfit(
            fmt::format("it has an output layer of its own, {}, but the model's is its token embedding", name));
      return unfit(fmt::format("{} belongs to no part of the model", tensor.name));
    }
    const DecoderTensor& to = found->second;
    if (to.role == TensorRole::kEmbedding && tensor.shape.size() == 2 && tensor.shape[0] > to.shape[0]) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("{}: {} has rows for {} tokens, the model knows {}: it was trained with tokens that were "
                      "added",
                      directory_.string(), name, tensor.shape[0], to.shape[0]),
          "add the tokens to the model first (resize_token_embeddings, save_pretrained with the tokenizer), "
          "and name that directory as the model"};
    }
    if (tensor.shape != to.shape)
      return unfit(fmt::format("{} has shape {}, the model's is {}", name, shown(tensor.shape), shown(to.shape)));
    out[to.gguf].apply = [&tensor, to](std::vector<float>& values) -> Status {
      values = to_gguf(to, to_f32(tensor));
      return {};
    };
    return {};
  }

  Status check(const std::string& name, const DecoderModule& m, const Update& u) const {
    using Shape = std::vector<std::int64_t>;
    if (u.scale != nullptr) {
      if (u.a != nullptr || u.b != nullptr) return unfit(fmt::format("{} has LoRA's matrices and IA3's scale", name));
      if (u.scale->shape == Shape{m.out, 1} || u.scale->shape == Shape{1, m.in}) return {};
      return unfit(fmt::format("the scale of {} has shape {}, expected [{}, 1] or [1, {}]", name, shown(u.scale->shape),
                               m.out, m.in));
    }
    if (u.a == nullptr || u.b == nullptr) return unfit(fmt::format("one of the two matrices for {} is missing", name));
    if (u.a->shape.size() != 2 || u.b->shape != Shape{m.out, u.a->shape[0]} || u.a->shape[1] != m.in) {
      return unfit(fmt::format("the matrices of {} have shapes {} and {}, expected [r, {}] and [{}, r]", name,
                               shown(u.a->shape), shown(u.b->shape), m.in, m.out));
    }
    if (u.magnitude != nullptr && u.magnitude->shape != Shape{m.out})
      return unfit(
          fmt::format("the lengths of {} have shape {}, expected [{}]", name, shown(u.magnitude->shape), m.out));
    if (u.magnitude == nullptr && flag("use_dora")) return unfit(fmt::format("the lengths of {} are missing", name));
    return {};
  }

  double scale_of(const std::string& module, std::int64_t rank) const {
    const Json alpha = config_.value("lora_alpha", Json());
    const double given = by_pattern("alpha_pattern", module).value_or(alpha.is_number() ? alpha.get<double>() : 8.0);
    return given / (flag("use_rslora") ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
  }

  Status add_update(const std::string& name, const DecoderModule& m, const Update& u, const GgufFile& model,
                    std::map<std::string, TensorChange, std::less<>>& out) const {
    for (const char* kind : {".weight", ".bias"}) {
      const std::string at = m.gguf + kind;
      if (model.tensor(at) == nullptr) continue;
      const bool bias = std::string_view(kind) == ".bias";
      const bool by_input = u.scale != nullptr && u.scale->shape[0] == 1 && m.out != 1;
      if (bias && (u.scale == nullptr || by_input)) continue;
      const TensorChange before = out.contains(at) ? out[at] : TensorChange{};  // a bias that was trained, then scaled
      const double scale = u.scale == nullptr ? scale_of(name, u.a->shape[0]) : 0;
      out[at].apply = [before, m, u, scale, by_input](std::vector<float>& values) -> Status {
        if (before.apply) TAILOR_CHECK(before.apply(values));
        const auto width = values.size() / static_cast<std::size_t>(m.out);
        if (u.scale == nullptr)
          fold(m, u, scale, values);
        else if (by_input)
          scale_columns(to_f32(*u.scale), values);
        else
          scale_rows(rows_to_gguf(m.rows, to_f32(*u.scale), 1), width, values);
        return {};
      };
    }
    if (!out.contains(m.gguf + ".weight")) return unfit(fmt::format("the model's file has no {}.weight", m.gguf));
    return {};
  }

  static void scale_columns(const std::vector<float>& scale, std::vector<float>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] *= scale[i % scale.size()];
  }
  static void scale_rows(const std::vector<float>& scale, std::size_t width, std::vector<float>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] *= scale[i / width];
  }

  /// W + scale B A, and with lengths m: its rows brought to length m.
  static void fold(const DecoderModule& m, const Update& u, double scale, std::vector<float>& values) {
    const auto rank = static_cast<std::size_t>(u.a->shape[0]), in = static_cast<std::size_t>(m.in);
    const std::vector<float> a = to_f32(*u.a), b = rows_to_gguf(m.rows, to_f32(*u.b), u.a->shape[0]);
    const std::vector<float> lengths =
        u.magnitude == nullptr ? std::vector<float>() : rows_to_gguf(m.rows, to_f32(*u.magnitude), 1);
    for (std::size_t o = 0; o < static_cast<std::size_t>(m.out); ++o) {
      float* row = values.data() + o * in;
      for (std::size_t r = 0; r < rank; ++r) {
        const auto factor = static_cast<float>(scale * b[o * rank + r]);
        for (std::size_t i = 0; i < in; ++i) row[i] += factor * a[r * in + i];
      }
      if (lengths.empty()) continue;
      double square = 0;
      for (std::size_t i = 0; i < in; ++i) square += static_cast<double>(row[i]) * row[i];
      const auto factor = static_cast<float>(lengths[o] / std::sqrt(square));
      for (std::size_t i = 0; i < in; ++i) row[i] *= factor;
    }
  }

  fs::path directory_;
  Json config_;
  std::optional<SafetensorsFile> weights_;
};

}  // namespace

Status merge_peft_adapter(const fs::path& base, const fs::path& directory, const fs::path& out) {
  PeftAdapter adapter(directory);
  TAILOR_CHECK(adapter.read_config());
  TAILOR_CHECK(adapter.open_weights());
  TAILOR_TRY(const GgufFile model, GgufFile::open(base));
  TAILOR_TRY(const auto changes, adapter.changes(model));
  TAILOR_TRY(const bool changed, write_changed_model(model, changes, out));
  if (!changed) return adapter.unfit("folded into the model it changes not one weight");
  return {};
}

}  // namespace tailor
