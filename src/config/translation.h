#pragma once
/// Keys of other tools that say the same in another unit or shape, or together with other keys.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/tune_config.h"

namespace tailor {

/// One key of the file with its value.
struct ConfigItem {
  std::string name;
  const YamlNode* value = nullptr;
  std::string where;  // "tune.yaml:7"
};

/// Gathers settings while a file is read.
class ConfigReader {
 public:
  /// Another value than one given before under another name is an error.
  void give(std::string_view key, Json value, const ConfigItem& item, std::string_view tools);
  /// By the setting's own rules.
  void read(std::string_view key, const ConfigItem& item, std::string_view tools, bool typed = false);
  void note(std::string text) { config.notes.push_back(std::move(text)); }
  void neutral(const ConfigItem& item) { unchanging.push_back(item.name); }
  void wrong(const ConfigItem& item, std::string_view expected, std::string hint = {});
  void refuse(const ConfigItem& item, std::string_view why, std::string hint = {});

  /// Keys that only say something together.
  struct Number {
    ConfigItem item;
    double value = 0;
  };
  std::optional<Number> micro_batch, accumulation, warmup_steps, evals_per_epoch, eval_steps;
  struct Word {
    ConfigItem item;
    std::string value;
  };
  std::optional<Word> family, four_bit, eval_strategy;  // family: a part of the methods, "lora"; four_bit: "true"
  std::optional<Word> storage, half_floats;             // storage: of the weights, "f32" or "bf16"; half_floats: "true"
  void finish();                                        // puts them together

  TuneConfig config;
  std::vector<std::string> unchanging;  // names of keys that say what holds anyway
};

struct Translation {
  std::string_view name;
  std::string_view tools;
  std::string_view becomes;  // own keys, for the documentation
  std::string_view schema;   // JSON Schema of the value
  void (*read)(ConfigReader& reader, const ConfigItem& item);
};
const std::vector<Translation>& translations();
const Translation* find_translation(std::string_view name);

}  // namespace tailor
