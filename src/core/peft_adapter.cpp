#include "core/peft_adapter.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <utility>

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kRows = ".token_adapter.trainable_tokens_delta";

struct Part {
  std::string_view suffix;
  const SafeTensor* PeftUpdate::*place;
};
constexpr Part kParts[] = {{".lora_A.weight", &PeftUpdate::a},
                           {".lora_B.weight", &PeftUpdate::b},
                           {".lora_magnitude_vector.weight", &PeftUpdate::magnitude},
                           {".lora_magnitude_vector", &PeftUpdate::magnitude},
                           {".ia3_l", &PeftUpdate::scale}};

std::string without(std::string name, std::string_view part) {
  if (const auto at = name.find(part); at != std::string::npos) name.erase(at, part.size());
  return name;
}

bool is_float(const SafeTensor& t) {
  return t.type == "F32" || t.type == "F16" || t.type == "BF16" || t.type == "F64";
}

bool all_ids(const Json& list) {
  if (!list.is_array() || list.empty()) return false;
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0) return false;
  }
  return true;
}

}  // namespace

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

Result<PeftAdapter> PeftAdapter::open(const fs::path& directory) {
  PeftAdapter adapter(directory);
  TAILOR_CHECK(adapter.read_config());
  TAILOR_CHECK(adapter.open_weights());
  TAILOR_CHECK(adapter.sort_tensors());
  return adapter;
}

Error unfit_adapter(const fs::path& adapter, const std::string& what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", adapter.string(), what),
          "an adapter fits only the model that it was trained on"};
}

Error PeftAdapter::unfit(const std::string& what) const {
  return unfit_adapter(directory_, what);
}

Status PeftAdapter::check_low_rank() const {
  return lora_ ? Status() : unfit("it is of the kind IA3; low-rank adapters can be gone on with");
}

std::string PeftAdapter::text(const char* key) const {
  const Json value = config_.value(key, Json());
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool PeftAdapter::flag(const char* key) const {
  const Json value = config_.value(key, Json());
  return value.is_boolean() && value.get<bool>();
}

Status PeftAdapter::read_config() {
  std::error_code ignored;
  if (!fs::exists(directory_ / "adapter_config.json", ignored)) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: there is no adapter_config.json", directory_.string()),
                 "give the directory that PEFT or Tailor wrote the adapter to"};
  }
  TAILOR_TRY(config_, read_json(directory_ / "adapter_config.json"));
  if (!config_.is_object()) return unfit("adapter_config.json is no object");
  const std::string type = text("peft_type");
  if (type != "LORA" && type != "IA3") {
    return unfit(fmt::format(
        "its peft_type is '{}'; LORA and IA3 can be folded into a model, and LORA can be gone on with", type));
  }
  lora_ = type == "LORA";
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

Status PeftAdapter::open_weights() {
  const fs::path file = directory_ / "adapter_model.safetensors";
  std::error_code ignored;
  if (!fs::exists(file, ignored) && fs::exists(directory_ / "adapter_model.bin", ignored))
    return unfit("its weights are a pickle, adapter_model.bin; save it with safe_serialization=True");
  TAILOR_TRY(SafetensorsFile opened, SafetensorsFile::open(file));
  weights_.emplace(std::move(opened));
  return {};
}

Status PeftAdapter::add_rows(const std::string& module, const SafeTensor& values) {
  // A list is of the table of words; an object has a list for each module.
  const Json given = config_.value("trainable_token_indices", Json());
  Json ids = given;
  if (given.is_object()) {
    for (const auto& [name, list] : given.items()) {
      if (module == name || module.ends_with("." + name)) ids = list;
    }
  }
  if (!all_ids(ids)) return unfit(fmt::format("trainable_token_indices does not say which tokens {} has", module));
  Rows rows{module, ids.get<std::vector<std::int64_t>>(), &values};
  if (values.shape.size() != 2 || values.shape[0] != static_cast<std::int64_t>(rows.ids.size())) {
    return unfit(fmt::format("the rows of {} have shape {}, but trainable_token_indices names {} tokens", module,
                             shape_text(values.shape), rows.ids.size()));
  }
  rows_.push_back(std::move(rows));
  return {};
}

Status PeftAdapter::sort_tensors() {
  std::map<std::string, PeftUpdate> updates;
  for (const SafeTensor& tensor : weights_->tensors()) {
    if (!tensor.name.starts_with(kPrefix)) return unfit(fmt::format("{} does not begin with {}", tensor.name, kPrefix));
    std::string name = tensor.name.substr(kPrefix.size());
    if (!is_float(tensor)) return unfit(fmt::format("{} is {}; numbers are expected", tensor.name, tensor.type));
    if (name.ends_with(kRows)) {
      TAILOR_CHECK(add_rows(name.substr(0, name.size() - kRows.size()), tensor));
      continue;
    }
    const Part* part = nullptr;
    for (const Part& p : kParts) part = part == nullptr && name.ends_with(p.suffix) ? &p : part;
    if (part != nullptr) {
      PeftUpdate& update = updates[name.substr(0, name.size() - part->suffix.size())];
      if (std::exchange(update.*(part->place), &tensor) != nullptr)
        return unfit(fmt::format("{} stands there twice", tensor.name));
      continue;
    }
    whole_.push_back({without(without(std::move(name), ".base_layer"), ".modules_to_save"), &tensor});
  }
  for (auto& [name, update] : updates) {
    update.module = name;
    if (update.scale != nullptr) {
      if (update.a != nullptr || update.b != nullptr)
        return unfit(fmt::format("{} has LoRA's matrices and IA3's scale", name));
    } else if (update.a == nullptr || update.b == nullptr) {
      return unfit(fmt::format("one of the two matrices for {} is missing", name));
    } else if (update.magnitude == nullptr && flag("use_dora")) {
      return unfit(fmt::format("the lengths of {} are missing", name));
    }
    updates_.push_back(std::move(update));
  }
  if (updates_.empty() && whole_.empty() && rows_.empty()) return unfit("it holds no tensor");
  return {};
}

/// As PEFT looks a module up: the first key that is the module's path or the end of it.
std::optional<double> PeftAdapter::by_pattern(const char* pattern, const std::string& module) const {
  const Json given = config_.value(pattern, Json());
  if (!given.is_object()) return {};
  for (const auto& [key, value] : given.items()) {
    if ((module == key || module.ends_with("." + key)) && value.is_number()) return value.get<double>();
  }
  return {};
}

double PeftAdapter::alpha_of(const std::string& module) const {
  constexpr double kUsual = 8;  // LoraConfig's own
  const Json alpha = config_.value("lora_alpha", Json());
  return by_pattern("alpha_pattern", module).value_or(alpha.is_number() ? alpha.get<double>() : kUsual);
}

double PeftAdapter::scale_of(const std::string& module, std::int64_t rank) const {
  const auto r = static_cast<double>(rank);
  return alpha_of(module) / (flag("use_rslora") ? std::sqrt(r) : r);
}

}  // namespace tailor
