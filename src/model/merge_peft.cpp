#include "model/merge_peft.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "core/decoder_layout.h"
#include "core/peft_adapter.h"
#include "model/changed_model.h"
#include "model/decoder_file.h"
#include "model/encoder_file.h"
#include "model/model_weights.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOutput = "lm_head";
constexpr std::string_view kWeight = ".weight";

using Changes = std::map<std::string, TensorChange, std::less<>>;  // by GGUF name

/// A whole tensor, and rows before those that the GGUF file has.
struct Tensor {
  DecoderTensor layout;
  std::int64_t skipped_rows = 0;
};

/// The model by Hugging Face's names, every name that adapters may use for it.
struct Layout {
  std::map<std::string, DecoderModule> modules;
  std::map<std::string, Tensor> tensors;
  std::optional<EncoderFamily> encoder;
  bool tied_output = false;

  /// Belongs to what stands behind an encoder: a pooler, a head.
  bool outside(const std::string& name) const { return encoder && !is_inside_encoder(*encoder, name); }
};

Result<Layout> decoder_layout(const GgufFile& model) {
  TAILOR_TRY(const DecoderSizes sizes, decoder_sizes(model));
  Layout layout;
  layout.tied_output = sizes.tied_output;
  // Adapters of a bare model (task_type FEATURE_EXTRACTION) leave out what stands before its layers.
  const std::string prefix(base_prefix(sizes.family));
  const auto add = [&](auto& to, const std::string& name, const auto& value) {
    to.emplace(name, value);
    if (!prefix.empty() && name.starts_with(prefix)) to.emplace(name.substr(prefix.size()), value);
  };
  for (const DecoderModule& m : decoder_modules(sizes)) add(layout.modules, m.hugging_face, m);
  for (const DecoderTensor& t : decoder_tensors(sizes)) add(layout.tensors, t.hugging_face, Tensor{t});
  return layout;
}

Result<Layout> encoder_layout(const GgufFile& model) {
  TAILOR_TRY(const Json json, encoder_config_json(model));
  TAILOR_TRY(const EncoderConfig config, encoder_config(json));
  Layout layout;
  layout.encoder = config.family;
  for (const EncoderPart& part : encoder_parts(config)) {
    if (part.source.empty()) continue;
    Tensor tensor;
    tensor.layout.hugging_face = part.source;
    tensor.layout.gguf = part.target;
    tensor.layout.shape = part.shape;
    tensor.layout.role = part.target == "token_embd.weight" ? TensorRole::kEmbedding : TensorRole::kMatrix;
    tensor.skipped_rows = part.skipped_rows;
    for (const std::string& name : stored_names(config.family, part.source)) {
      layout.tensors.emplace(name, tensor);
      if (!part.target.starts_with("blk.") || part.shape.size() != 2) continue;
      layout.modules.emplace(name.substr(0, name.size() - kWeight.size()),
                             DecoderModule{.hugging_face = part.source.substr(0, part.source.size() - kWeight.size()),
                                           .gguf = part.target.substr(0, part.target.size() - kWeight.size()),
                                           .in = part.shape[1],
                                           .out = part.shape[0],
                                           .rows = {}});
    }
  }
  return layout;
}

class Merge {
 public:
  Merge(const PeftAdapter& adapter, const GgufFile& model, Layout layout)
      : adapter_(adapter), model_(model), layout_(std::move(layout)) {}

  Result<Changes> changes() {
    for (const PeftAdapter::Whole& whole : adapter_.whole()) {
      if (left_out(whole.name)) continue;
      TAILOR_CHECK(add_whole(whole));
    }
    for (const PeftAdapter::Rows& rows : adapter_.rows()) TAILOR_CHECK(add_rows(rows));
    for (const PeftUpdate& update : adapter_.updates()) {
      if (left_out(update.module)) continue;
      const auto module = layout_.modules.find(update.module);
      if (module == layout_.modules.end())
        return adapter_.unfit(fmt::format("it changes {}, which the model has not", update.module));
      TAILOR_CHECK(check(module->second, update));
      TAILOR_CHECK(add_update(module->second, update));
    }
    if (out_.empty()) return adapter_.unfit(fmt::format("it changes nothing of the encoder, only {}", left_out_[0]));
    return std::move(out_);
  }
  std::vector<std::string> left_out() const { return left_out_; }

 private:
  bool left_out(const std::string& name) {
    if (!layout_.outside(name)) return false;
    left_out_.push_back(name);
    return true;
  }

  Status add_whole(const PeftAdapter::Whole& whole) {
    const SafeTensor& tensor = *whole.tensor;
    const auto found = layout_.tensors.find(whole.name);
    if (found == layout_.tensors.end()) {
      if (layout_.tied_output && whole.name.starts_with(kOutput)) {
        return adapter_.unfit(
            fmt::format("it has an output layer of its own, {}, but the model's is its token embedding", whole.name));
      }
      return adapter_.unfit(fmt::format("{} belongs to no part of the model", tensor.name));
    }
    const Tensor& to = found->second;
    std::vector<std::int64_t> shape = to.layout.shape;
    if (to.layout.role == TensorRole::kEmbedding && tensor.shape.size() == 2 && tensor.shape[0] > shape[0])
      return new_tokens(fmt::format("{} has rows for {} tokens", whole.name, tensor.shape[0]), shape[0]);
    shape[0] += to.skipped_rows;
    if (tensor.shape != shape) {
      return adapter_.unfit(
          fmt::format("{} has shape {}, the model's is {}", whole.name, shape_text(tensor.shape), shape_text(shape)));
    }
    out_[to.layout.gguf].apply = [&tensor, to](std::vector<float>& values) -> Status {
      std::vector<float> all = to_f32(tensor);
      if (to.skipped_rows > 0) all.erase(all.begin(), all.begin() + to.skipped_rows * to.layout.shape[1]);
      values = to_gguf(to.layout, all);
      return {};
    };
    return {};
  }

  Error new_tokens(const std::string& what, std::int64_t known) const {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: {}, the model knows {}: it was trained with tokens that were added",
                        adapter_.directory().string(), what, known),
            "add the tokens to the model first (resize_token_embeddings, save_pretrained with the tokenizer), "
            "and name that directory as the model"};
  }

  Status add_rows(const PeftAdapter::Rows& rows) {
    const auto found = layout_.tensors.find(rows.module + std::string(kWeight));
    if (found == layout_.tensors.end())
      return adapter_.unfit(fmt::format("it has rows of {}, which the model has not", rows.module));
    const DecoderTensor& to = found->second.layout;
    const std::int64_t width = to.shape.back(), known = to.shape[0];
    if (to.shape.size() != 2 || rows.values->shape[1] != width) {
      return adapter_.unfit(fmt::format("the rows of {} have shape {}, the model's tensor is {}", rows.module,
                                        shape_text(rows.values->shape), shape_text(to.shape)));
    }
    const std::int64_t highest = *std::max_element(rows.ids.begin(), rows.ids.end());
    if (highest >= known)
      return new_tokens(fmt::format("it has a row for token {} of {}", highest, rows.module), known);
    const TensorChange before = out_[to.gguf];
    out_[to.gguf].apply = [before, &rows, width](std::vector<float>& values) -> Status {
      if (before.apply) TAILOR_CHECK(before.apply(values));
      const std::vector<float> given = to_f32(*rows.values);
      for (std::size_t i = 0; i < rows.ids.size(); ++i)
        std::copy_n(given.begin() + static_cast<std::int64_t>(i) * width, width, values.begin() + rows.ids[i] * width);
      return {};
    };
    return {};
  }

  Status check(const DecoderModule& m, const PeftUpdate& u) const {
    using Shape = std::vector<std::int64_t>;
    if (u.scale != nullptr) {
      if (u.scale->shape == Shape{m.out, 1} || u.scale->shape == Shape{1, m.in}) return {};
      return adapter_.unfit(fmt::format("the scale of {} has shape {}, expected [{}, 1] or [1, {}]", u.module,
                                        shape_text(u.scale->shape), m.out, m.in));
    }
    if (u.a->shape.size() != 2 || u.a->shape[0] < 1 || u.b->shape != Shape{m.out, u.a->shape[0]} ||
        u.a->shape[1] != m.in) {
      return adapter_.unfit(fmt::format("the matrices of {} have shapes {} and {}, expected [r, {}] and [{}, r]",
                                        u.module, shape_text(u.a->shape), shape_text(u.b->shape), m.in, m.out));
    }
    if (u.magnitude != nullptr && u.magnitude->shape != Shape{m.out}) {
      return adapter_.unfit(fmt::format("the lengths of {} have shape {}, expected [{}]", u.module,
                                        shape_text(u.magnitude->shape), m.out));
    }
    return {};
  }

  Status add_update(const DecoderModule& m, const PeftUpdate& u) {
    for (const char* kind : {".weight", ".bias"}) {
      const std::string at = m.gguf + kind;
      if (model_.tensor(at) == nullptr) continue;
      const bool bias = std::string_view(kind) == ".bias";
      const bool by_input = u.scale != nullptr && u.scale->shape[0] == 1 && m.out != 1;
      if (bias && (u.scale == nullptr || by_input)) continue;
      const TensorChange before = out_.contains(at) ? out_[at] : TensorChange{};  // a trained bias, then scaled
      const double scale = u.scale == nullptr ? adapter_.scale_of(u.module, u.a->shape[0]) : 0;
      out_[at].apply = [before, m, u, scale, by_input](std::vector<float>& values) -> Status {
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
    if (!out_.contains(m.gguf + ".weight")) return adapter_.unfit(fmt::format("the model has no {}.weight", m.gguf));
    return {};
  }

  static void scale_columns(const std::vector<float>& scale, std::vector<float>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] *= scale[i % scale.size()];
  }
  static void scale_rows(const std::vector<float>& scale, std::size_t width, std::vector<float>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] *= scale[i / width];
  }

  /// W + scale B A, and with lengths m: its rows brought to length m.
  static void fold(const DecoderModule& m, const PeftUpdate& u, double scale, std::vector<float>& values) {
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

  const PeftAdapter& adapter_;
  const GgufFile& model_;
  const Layout layout_;
  Changes out_;
  std::vector<std::string> left_out_;
};

}  // namespace

Result<PeftMerge> merge_peft_adapter(const fs::path& base, const fs::path& directory, const fs::path& out) {
  TAILOR_TRY(const PeftAdapter adapter, PeftAdapter::open(directory));
  TAILOR_TRY(const GgufFile model, GgufFile::open(base));
  TAILOR_TRY(const std::string arch, model.architecture());
  TAILOR_TRY(Layout layout, arch == "bert" || arch == "modern-bert" ? encoder_layout(model) : decoder_layout(model));
  Merge merge(adapter, model, std::move(layout));
  TAILOR_TRY(const Changes changes, merge.changes());
  TAILOR_TRY(const bool changed, write_changed_model(model, changes, out));
  if (!changed) return adapter.unfit("folded into the model it changes not one weight");
  return PeftMerge{merge.left_out()};
}

}  // namespace tailor
