#include "tune/adapter_start.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "core/decoder_layout.h"
#include "core/hash.h"
#include "core/peft_adapter.h"
#include "tune/decoder_export.h"
#include "tune/decoder_lora.h"
#include "tune/encoder.h"
#include "tune/hf_names.h"
#include "tune/whole_modules.h"

namespace tailor::tune {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTakeItsOwn = "leave it out: the adapter's own is taken";

Result<at::Tensor> to_float(const PeftAdapter& adapter, const SafeTensor& t) {
  const int type = t.type == "F32" ? GGML_TYPE_F32 : t.type == "F16" ? GGML_TYPE_F16 : GGML_TYPE_BF16;
  if (t.type != "F32" && t.type != "F16" && t.type != "BF16")
    return adapter.unfit(fmt::format("{} is {}; F32, F16 or BF16 is expected", t.name, t.type));
  at::Tensor out = at::empty(t.shape, at::kFloat);
  dequantise(type, t.bytes.data(), 1, out.numel(), out.data_ptr<float>());
  return out;
}

std::vector<std::string> names_in(const Json& value) {
  if (value.is_string()) return {value.get<std::string>()};
  std::vector<std::string> names;
  for (const Json& name : value.is_array() ? value : Json::array()) {
    if (name.is_string()) names.push_back(name.get<std::string>());
  }
  return names;
}

/// Modules of one rank and one scale: the settings have one number for each.
Status take_rank(AdapterFile& file, const std::string& module, std::int64_t rank, double alpha) {
  if (file.modules.empty()) {
    file.rank = rank;
    file.alpha = alpha;
  }
  if (rank == file.rank && std::abs(alpha - file.alpha) <= 1e-9 * std::abs(alpha)) return {};
  Error error =
      file.unfit(fmt::format("{} has r {} and alpha {}, {} has {} and {}: one rank and one alpha can be gone "
                             "on with",
                             file.modules.front().name, file.rank, file.alpha, module, rank, alpha));
  error.hint = "fold it into the base with `tailor models merge`, and begin a new adapter on that";
  return error;
}

Result<AdapterFile> open_peft(const fs::path& directory) {
  TAILOR_TRY(const PeftAdapter adapter, PeftAdapter::open(directory));
  AdapterFile file;
  file.path = directory;
  TAILOR_CHECK(adapter.check_low_rank());
  file.rslora = adapter.flag("use_rslora");
  file.dora = adapter.flag("use_dora");
  const Json dropout = adapter.config().value("lora_dropout", Json());
  if (dropout.is_number()) file.dropout = dropout.get<double>();
  file.targets = names_in(adapter.config().value("target_modules", Json()));
  for (const PeftUpdate& u : adapter.updates()) {
    if (u.a->shape.size() != 2 || u.b->shape.size() != 2 || u.a->shape[0] < 1 || u.a->shape[0] != u.b->shape[1]) {
      return file.unfit(fmt::format("the matrices of {} have shapes {} and {}, expected [r, in] and [out, r]", u.module,
                                    shape_text(u.a->shape), shape_text(u.b->shape)));
    }
    TAILOR_CHECK(take_rank(file, u.module, u.a->shape[0], adapter.alpha_of(u.module)));
    AdapterFile::Module module{u.module, {}, {}, {}};
    TAILOR_TRY(module.a, to_float(adapter, *u.a));
    TAILOR_TRY(module.b, to_float(adapter, *u.b));
    if (u.magnitude != nullptr) {
      TAILOR_TRY(module.magnitude, to_float(adapter, *u.magnitude));
    }
    file.modules.push_back(std::move(module));
  }
  for (const PeftAdapter::Whole& whole : adapter.whole()) {
    TAILOR_TRY(at::Tensor value, to_float(adapter, *whole.tensor));
    file.whole.push_back({whole.name, std::move(value)});
  }
  for (const PeftAdapter::Rows& rows : adapter.rows()) {
    TAILOR_TRY(at::Tensor values, to_float(adapter, *rows.values));
    file.rows.push_back({rows.module, {rows.ids.begin(), rows.ids.end()}, std::move(values)});
  }
  if (const auto base = adapter.metadata().find(kAdapterBase); base != adapter.metadata().end())
    file.base = base->second;
  return file;
}

Result<AdapterFile> open_gguf(const fs::path& path) {
  TAILOR_TRY(const BaseWeights weights, BaseWeights::open(path));
  AdapterFile file;
  file.path = path;
  file.of_peft = false;
  if (weights.text("general.type") != "adapter" || weights.text("adapter.type") != "lora")
    return file.unfit("it is no low-rank adapter, but a model");
  const auto alpha = weights.number("adapter.lora.alpha");
  if (!alpha || *alpha <= 0) return file.unfit("adapter.lora.alpha is missing");
  constexpr std::string_view kA = ".weight.lora_a", kB = ".weight.lora_b";
  for (const std::string& name : weights.names()) {
    const bool a = name.ends_with(kA);
    if (!a && !name.ends_with(kB)) return file.unfit(fmt::format("{} belongs to no low-rank adapter", name));
    AdapterFile::Module module{name.substr(0, name.size() - kA.size()), {}, {}, {}};
    if (!weights.has(module.name + std::string(a ? kB : kA)))
      return file.unfit(fmt::format("one of the two matrices for {} is missing", module.name));
    if (!a) continue;
    module.a = weights.load(name);
    module.b = weights.load(module.name + std::string(kB));
    // A dimension of 1 at the end is not written.
    if (module.a.dim() == 1) module.a = module.a.unsqueeze(0);
    if (module.b.dim() == 1) module.b = module.b.unsqueeze(1);
    TAILOR_CHECK(take_rank(file, module.name, module.a.size(0), *alpha));
    file.targets.push_back(module.name);
    file.modules.push_back(std::move(module));
  }
  return file;
}

/// Rows of a matrix or numbers of a vector from Hugging Face's order into GGUF's.
at::Tensor rows_from_hugging_face(const decoder::DecoderConfig& config, const decoder::Module& module,
                                  const at::Tensor& rows) {
  std::vector<std::int64_t> from(static_cast<std::size_t>(rows.size(0)));
  for (std::int64_t r = 0; r < rows.size(0); ++r)
    from[static_cast<std::size_t>(r)] = decoder::hugging_face_row(config, module, r);
  return rows.index_select(0, at::tensor(from, at::kLong));
}

Status check_shapes(const AdapterFile& file, const AdapterFile::Module& m, std::int64_t out, std::int64_t in) {
  const std::vector<std::int64_t> a{file.rank, in}, b{out, file.rank}, magnitude{out};
  if (m.a.sizes() != a || m.b.sizes() != b) {
    return file.unfit(fmt::format("the matrices of {} have shapes {} and {}, the model's module is [{}, {}]", m.name,
                                  shape_text(m.a.sizes().vec()), shape_text(m.b.sizes().vec()), out, in));
  }
  if (m.magnitude.defined() != file.dora || (file.dora && m.magnitude.sizes() != magnitude))
    return file.unfit(
        fmt::format("the lengths of {} should be {}", m.name, file.dora ? shape_text(magnitude) : "none"));
  return {};
}

Status check_base(const AdapterFile& file, const BaseWeights& base) {
  if (file.base.empty() || file.base == identity_of(base)) return {};
  return file.unfit(fmt::format("it was trained on another model than {}", base.path().string()));
}

/// The targets that the job names, where it names others than the adapter itself does.
Status check_targets(const AdapterFile& file, const Job& job, const std::set<std::string>& asked,
                     const AdapterStart& start) {
  for (const auto& [name, unused] : start.modules) {
    if (!asked.contains(name))
      return file.unfit(fmt::format("it changes {}, which lora.target_modules ({}) does not name", name,
                                    fmt::join(job.settings.lora.target_modules, ", ")));
  }
  for (const std::string& name : asked) {
    if (!start.modules.contains(name))
      return file.unfit(fmt::format("lora.target_modules ({}) names {}, which it does not change",
                                    fmt::join(job.settings.lora.target_modules, ", "), name));
  }
  return {};
}

std::string without(std::string name, std::string_view prefix) {
  if (!prefix.empty() && name.starts_with(prefix)) name.erase(0, prefix.size());
  return name;
}

}  // namespace

std::string identity_of(const BaseWeights& base) {
  std::uint64_t hash = 0;
  std::vector<std::string> names = base.names();
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    if (base.stored(name).shape.size() != 1) continue;
    const at::Tensor values = base.load(name);
    hash = hash64(name, hash);
    hash = hash64({reinterpret_cast<const char*>(values.data_ptr<float>()),
                   static_cast<std::size_t>(values.numel()) * sizeof(float)},
                  hash);
  }
  return fmt::format("{:016x}", hash);
}

Error AdapterFile::unfit(const std::string& what) const {
  return unfit_adapter(path, what);
}

Result<AdapterFile> AdapterFile::open(const fs::path& path) {
  std::error_code ignored;
  TAILOR_TRY(AdapterFile file, fs::is_directory(path, ignored) ? open_peft(path) : open_gguf(path));
  if (file.modules.empty()) return file.unfit("it holds no low-rank update");
  return file;
}

Status take_adapter_settings(const AdapterFile& file, const Json& given, const std::string& where, Job& job) {
  LoraSettings& lora = job.settings.lora;
  const auto differs = [&](const char* key, const auto& asked, const auto& has) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: settings.lora.{} is {}, but the adapter {} has {}", where, key, asked,
                             file.path.string(), has),
                 kTakeItsOwn};
  };
  if (lora.pissa) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: an adapter that is gone on with does not begin at the base's singular values", where),
                 "use method lora"};
  }
  if (given.contains("r") && lora.r != file.rank) return differs("r", lora.r, file.rank);
  if (given.contains("alpha") && std::abs(lora.alpha - file.alpha) > 1e-9 * std::abs(file.alpha))
    return differs("alpha", lora.alpha, file.alpha);
  for (const auto& [key, asked, has] :
       {std::tuple{"rslora", lora.rslora, file.rslora}, {"dora", lora.dora, file.dora}}) {
    if (asked == has || (!asked && !given.contains(key))) continue;
    Error error = differs(key, asked, has);
    if (!given.contains(key)) error.hint = fmt::format("method {} sets it: use method lora", job.method);
    return error;
  }
  lora.r = static_cast<int>(file.rank);
  lora.alpha = file.alpha;
  lora.rslora = file.rslora;
  lora.dora = file.dora;
  if (!given.contains("dropout") && job.method != "distill") lora.dropout = file.dropout;
  if (!given.contains("target_modules")) lora.target_modules = file.targets;
  if (!given.contains("modules_to_save") && !for_encoders(job.task)) {
    lora.modules_to_save.clear();
    for (const AdapterFile::Whole& whole : file.whole) {
      const std::string module = whole.name.substr(0, whole.name.rfind('.'));
      lora.modules_to_save.push_back(module.substr(module.rfind('.') + 1));
    }
  }
  for (const AdapterFile::Rows& rows : file.rows) {
    std::vector<std::int32_t> ids = rows.ids;
    if (given.contains("trained_tokens") && lora.trained_tokens != ids)
      return differs("trained_tokens", fmt::format("[{}]", fmt::join(lora.trained_tokens, ", ")),
                     fmt::format("[{}]", fmt::join(ids, ", ")));
    if (ids != file.rows.front().ids)
      return file.unfit(fmt::format("{} and {} have rows of other tokens", file.rows.front().module, rows.module));
    lora.trained_tokens = std::move(ids);
  }
  return {};
}

Result<AdapterStart> decoder_start(const Job& job, const BaseWeights& base, const decoder::DecoderConfig& config,
                                   bool tied) {
  TAILOR_TRY(const AdapterFile file, AdapterFile::open(job.adapter));
  TAILOR_CHECK(check_base(file, base));
  const auto family = family_of_architecture(config.architecture);
  const std::string_view prefix = family ? base_prefix(*family) : "";
  struct Place {
    std::string gguf;
    const decoder::Module* module;
  };
  std::map<std::string, Place> places;  // by the file's names, without what a bare model leaves out
  for (std::int64_t l = 0; l < config.layers; ++l) {
    for (const decoder::Module& m : config.modules) {
      const std::string gguf = fmt::format("blk.{}.{}", l, m.gguf);
      const std::string peft = without(fmt::format("{}{}.{}", config.hf_layers, l, m.hf_path), prefix);
      places[file.of_peft ? peft : gguf] = {gguf, &m};
    }
  }
  AdapterStart start;
  for (const AdapterFile::Module& m : file.modules) {
    const auto place = places.find(without(m.name, prefix));
    if (place == places.end()) return file.unfit(fmt::format("it changes {}, which the model has not", m.name));
    const decoder::Module& module = *place->second.module;
    TAILOR_CHECK(check_shapes(file, m, module.out, module.in));
    AdapterStart::Module& to = start.modules[place->second.gguf];
    to = {m.a, m.b, m.magnitude};
    if (!file.of_peft) continue;
    to.b = rows_from_hugging_face(config, module, m.b);
    if (m.magnitude.defined()) to.magnitude = rows_from_hugging_face(config, module, m.magnitude);
  }
  const auto tensor_of = [&](const std::string& name) -> Result<std::string> {
    const std::string last = name.substr(name.rfind('.') + 1);
    TAILOR_TRY(const auto found, decoder::whole_modules(config, tied, {last}));
    return found.front().tensor;
  };
  for (const AdapterFile::Whole& whole : file.whole) {
    if (!whole.name.ends_with(".weight")) {
      return file.unfit(fmt::format("{} was trained too, which no method here does beside an adapter", whole.name));
    }
    TAILOR_TRY(const std::string tensor, tensor_of(whole.name.substr(0, whole.name.rfind('.'))));
    const std::vector<std::int64_t> shape{base.stored("token_embd.weight").shape.front(), config.hidden};
    if (whole.value.sizes() != shape) {
      return file.unfit(fmt::format("{} has shape {}, the model's is {}", whole.name,
                                    shape_text(whole.value.sizes().vec()), shape_text(shape)));
    }
    const auto [at, added] = start.whole.emplace(tensor, whole.value);
    if (!added && !at::equal(at->second, whole.value)) {
      return file.unfit(
          fmt::format("it has an output layer of its own, {}, but the model's is its table of words", whole.name));
    }
  }
  for (const AdapterFile::Rows& rows : file.rows) {
    TAILOR_TRY(const std::string tensor, tensor_of(rows.module));
    start.rows.emplace(tensor, rows.values);
  }
  if (job.settings.lora.target_modules != file.targets) {
    TAILOR_TRY(const auto targeted, decoder::parse_targets(config, job.settings.lora.target_modules));
    std::set<std::string> asked;
    for (std::size_t l = 0; l < targeted.size(); ++l) {
      for (std::size_t m = 0; m < config.modules.size(); ++m) {
        if (targeted[l][m]) asked.insert(fmt::format("blk.{}.{}", l, config.modules[m].gguf));
      }
    }
    TAILOR_CHECK(check_targets(file, job, asked, start));
  }
  return start;
}

Result<AdapterStart> encoder_start(const Job& job, const BaseWeights& base) {
  TAILOR_TRY(const AdapterFile file, AdapterFile::open(job.adapter));
  TAILOR_CHECK(check_base(file, base));
  const EncoderConfig config = EncoderConfig::read(base);
  const std::string_view prefix = hf_model_prefix(config.model_type), layers = hf_layer_prefix(config.model_type);
  std::map<std::string, std::string> places;
  for (std::int64_t l = 0; l < config.layers; ++l) {
    for (const std::string& module : encoder_linear_modules(config.model_type)) {
      const std::string gguf = fmt::format("blk.{}.{}", l, module);
      places[file.of_peft ? *hf_module_of_encoder(gguf, config.model_type) : gguf] = gguf;
    }
  }
  const auto inside = [&](const std::string& name) {
    return name.starts_with(layers) || name.starts_with("blk.") || name.starts_with("embeddings.") ||
           name.starts_with("final_norm");
  };
  AdapterStart start;
  for (const AdapterFile::Module& m : file.modules) {
    const std::string name = without(m.name, prefix);
    const auto place = places.find(name);
    if (place == places.end()) {
      if (inside(name)) return file.unfit(fmt::format("it changes {}, which the model has not", m.name));
      continue;  // of what stands behind the encoder
    }
    const StoredTensor& weight = base.stored(place->second + ".weight");
    TAILOR_CHECK(check_shapes(file, m, weight.shape.front(), weight.shape.back()));
    start.modules[place->second] = {m.a, m.b, m.magnitude};
  }
  if (start.modules.empty()) return file.unfit("it changes nothing of the encoder");
  for (const AdapterFile::Whole& whole : file.whole) {
    if (inside(without(whole.name, prefix))) {
      return file.unfit(
          fmt::format("{} was trained whole, which no method here does beside an encoder's adapter", whole.name));
    }
  }
  if (!file.rows.empty()) return file.unfit("it has rows of single tokens, which are for decoders");
  if (job.settings.lora.target_modules != file.targets) {
    const auto asked = resolve_lora_targets(job.settings.lora.target_modules, config.model_type, config.layers);
    TAILOR_CHECK(check_targets(file, job, {asked.begin(), asked.end()}, start));
  }
  return start;
}

}  // namespace tailor::tune
