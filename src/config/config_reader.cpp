#include <fmt/format.h>

#include "config/translation.h"
#include "config/value.h"

namespace tailor {

void ConfigReader::wrong(const ConfigItem& item, std::string_view expected, std::string hint) {
  config.errors.push_back(
      {ErrorCode::kInvalidArgument,
       fmt::format("{}: {} should be {}, it is {}", item.where, item.name, expected, seen_of(*item.value)),
       std::move(hint)});
}

void ConfigReader::refuse(const ConfigItem& item, std::string_view why, std::string hint) {
  config.errors.push_back(
      {ErrorCode::kInvalidArgument, fmt::format("{}: {} {}", item.where, item.name, why), std::move(hint)});
}

void ConfigReader::give(std::string_view key, Json value, const ConfigItem& item, std::string_view tools) {
  const Setting* setting = find_setting(key);
  for (GivenSetting& known : config.given) {
    if (known.setting != setting) continue;
    if (known.value == value) {
      known.name += ", " + item.name;
      if (!tools.empty() && known.tools.find(tools) == std::string::npos)
        known.tools += (known.tools.empty() ? "" : ", ") + std::string(tools);
    } else {
      refuse(item,
             fmt::format("says {} is {}, but {} says {} ({})", key, dump_json(value), known.name,
                         dump_json(known.value), known.where),
             "keep one of them");
    }
    return;
  }
  config.given.push_back({setting, std::move(value), item.name, std::string(tools), item.where});
}

void ConfigReader::read(std::string_view key, const ConfigItem& item, std::string_view tools, bool typed) {
  const Setting* setting = find_setting(key);
  const auto value = read_value(*setting, *item.value, typed);
  if (!value) {
    std::string hint;
    const bool number = setting->kind == ValueKind::kNumber || setting->kind == ValueKind::kWhole;
    if (number && item.value->quoted) hint = "write numbers without quotes";
    if (setting->kind == ValueKind::kText && item.value->kind == YamlNode::Kind::kScalar) hint = "put it in quotes";
    return wrong(item, expected_of(*setting), hint);
  }
  give(key, *value, item, tools);
}

void ConfigReader::finish() {
  // The method: a family, refined by what else is said.
  const GivenSetting* method = config.find("method");
  const Word* said = four_bit ? &*four_bit : family ? &*family : nullptr;
  if (said != nullptr) {
    if (four_bit && family) said = &*family;  // both: the line that names the kind of adapter
    const std::string known = method == nullptr ? "" : method->value.get<std::string>();
    const MethodPart* part = find_method_part(known);
    if (method == nullptr || (four_bit && known == "lora")) {
      if (method != nullptr)
        std::erase_if(config.given, [](const GivenSetting& g) { return g.setting->key == "method"; });
      ConfigItem item = said->item;
      if (four_bit && family) item.name += ", " + four_bit->item.name;
      give("method", four_bit ? "qlora" : "lora", item, "");
    } else if (four_bit && known != "qlora") {
      refuse(four_bit->item, fmt::format("means nothing to method {}", known), "it makes qlora of lora");
    } else if (family && (part == nullptr || part->part != SettingPart::kLora)) {
      refuse(family->item,
             fmt::format("asks for low-rank updates, but {} says {} ({})", method->name, known, method->where),
             "keep one of them");
    }
  }
  // What frozen matrices are kept as: the word for weights before that for arithmetic.
  if (const Word* asked = storage ? &*storage : half_floats ? &*half_floats : nullptr; asked != nullptr) {
    const GivenSetting* named = config.find("method");
    const MethodPart* part = find_method_part(named == nullptr ? "lora" : named->value.get<std::string>());
    const GivenSetting* pissa = config.find("lora.pissa");
    const bool exact = (part != nullptr && part->method == "pissa") || (pissa != nullptr && pissa->value == true);
    if (asked->value == "f32")
      neutral(asked->item);
    else if (part != nullptr && !exact && means_something(*find_setting("dtype"), *part, ModelSort::kUnknown))
      give("dtype", "bf16", asked->item, "");
    else
      note(fmt::format("{}: {} changes nothing: {}", asked->item.where, asked->item.name,
                       exact ? "pissa needs the exact weights" : "this method keeps no frozen matrix as floats"));
    if (storage && half_floats) neutral(half_floats->item);
  }
  // Rows of a step of the optimiser.
  const GivenSetting* batch = config.find("batch_size");
  if (micro_batch) {
    const double rows = micro_batch->value * (accumulation ? accumulation->value : 1);
    ConfigItem item = micro_batch->item;
    if (accumulation) item.name += " x " + accumulation->item.name;
    if (rows > 1e6)
      refuse(item, fmt::format("makes a batch of {} rows, at most 1000000 are read", rows));
    else
      give("batch_size", static_cast<std::int64_t>(rows), item, "");
  } else if (accumulation && accumulation->value > 1) {
    refuse(accumulation->item,
           batch == nullptr ? "says nothing without the rows of one part of a step"
                            : "beside batch_size is not clear: batch_size is all rows of one step of the optimiser",
           "write batch_size alone, the product of both");
  } else if (accumulation) {
    neutral(accumulation->item);
  }
  if (warmup_steps) {
    const GivenSetting* steps = config.find("max_steps");
    const double total = steps == nullptr ? 0 : steps->value.get<double>();
    if (warmup_steps->value == 0)
      give("warmup_ratio", 0.0, warmup_steps->item, "");
    else if (total > warmup_steps->value)
      give("warmup_ratio", warmup_steps->value / total, warmup_steps->item, "");
    else
      refuse(
          warmup_steps->item,
          total > 0 ? "leaves no step after the warm-up" : "can be turned into a share only where max_steps is given",
          "write warmup_ratio: the share of the steps on which the rate rises");
  }
  // When to evaluate.
  const std::string strategy = eval_strategy ? eval_strategy->value : "";
  if (strategy == "no") {
    give("evaluate_every_epochs", 0.0, eval_strategy->item, "");
    if (eval_steps) neutral(eval_steps->item);
    note(fmt::format("{}: {}: without evaluations the last values are kept, not the best", eval_strategy->item.where,
                     eval_strategy->item.name));
  } else if (strategy == "epoch") {
    if (!evals_per_epoch) give("evaluate_every_epochs", 1.0, eval_strategy->item, "");
    if (eval_steps) neutral(eval_steps->item);
  } else if (eval_steps) {
    give("evaluate_every_steps", static_cast<std::int64_t>(eval_steps->value), eval_steps->item, "");
  } else if (strategy == "steps" && config.find("evaluate_every_steps") == nullptr) {
    refuse(eval_strategy->item, "says steps, but eval_steps is missing", "add eval_steps: 100");
  }
  if (evals_per_epoch && strategy != "no")
    give("evaluate_every_epochs", 1 / evals_per_epoch->value, evals_per_epoch->item, "Axolotl");
}

}  // namespace tailor
