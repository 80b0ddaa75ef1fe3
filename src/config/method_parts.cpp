#include <algorithm>
#include <iterator>

#include "config/setting.h"

namespace tailor {

const std::vector<MethodPart>& method_parts() {
  using enum SettingPart;
  static const std::vector<MethodPart> kMethods = {
      {"full", kEvery, true, true},
      {"upper-layers", kUpperLayers, true, true},
      {"head", kEvery, true, false},
      {"features", kEvery, true, false},
      {"bitfit", kEvery, true, true},
      {"layernorm", kEvery, true, true},
      {"lora", kLora, true, true},
      {"rslora", kLora, true, true},
      {"dora", kLora, true, true},
      {"lora-plus", kLora, true, true},
      {"pissa", kLora, true, true},
      {"qlora", kLora, false, true},
      {"ia3", kEvery, true, true},
      {"adapter-houlsby", kAdapter, true, true},
      {"adapter-pfeiffer", kAdapter, true, true},
      {"adapter-parallel", kAdapter, true, true},
      {"prompt-tuning", kSoftPrompt, false, true},
      {"p-tuning", kSoftPrompt, false, true},
      {"prefix-tuning", kSoftPrompt, false, true},
      {"contrastive", kContrastive, true, false},
      {"distill", kDistill, true, true},
  };
  return kMethods;
}

const MethodPart* find_method_part(std::string_view method) {
  for (const MethodPart& known : method_parts()) {
    if (known.method == method) return &known;
  }
  return nullptr;
}

bool means_something(const Setting& setting, const MethodPart& method, ModelSort model) {
  const bool trains = setting.target.starts_with("/settings/") || setting.target.starts_with("/job/");
  if (setting.key == "device" || setting.key == "max_steps") return true;  // a method without steps keeps any limit
  if (method.method == "features" && (trains || setting.part == SettingPart::kHead)) return false;  // it trains nothing
  if (setting.key == "soft_prompt.reparameterise" && method.method == "p-tuning") return false;     // it is a network
  const bool encoder = model == ModelSort::kEncoder || (model == ModelSort::kUnknown && method.encoders);
  switch (setting.part) {
    case SettingPart::kEvery:
    case SettingPart::kTexts:
    case SettingPart::kLabels:
      return true;
    case SettingPart::kHead:
      // Contrastive tuning always begins its head at a regression.
      return encoder && !(setting.key == "head_start" && method.part == SettingPart::kContrastive);
    case SettingPart::kLabelNames:
      return encoder && method.part != SettingPart::kDistill;
    case SettingPart::kLora:  // a decoder that is a student learns a low-rank update
      return method.part == SettingPart::kLora || (method.part == SettingPart::kDistill && !encoder);
    case SettingPart::kFrozen: {
      static constexpr std::string_view kNone[] = {"full", "contrastive", "head", "features", "qlora"};
      return std::find(std::begin(kNone), std::end(kNone), method.method) == std::end(kNone) &&
             (method.part != SettingPart::kDistill || model != ModelSort::kEncoder);
    }
    case SettingPart::kLayers:
      return method.method != "head" && method.method != "features";
    default:
      return setting.part == method.part;
  }
}

}  // namespace tailor
