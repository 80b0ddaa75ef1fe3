#pragma once
/// The table of everything that can be said about a run of `tailor tune`. One row a setting drives the command line's
/// flags, the reader of the configuration file with its aliases, the JSON Schema and docs/CONFIG.md.

#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace tailor {

enum class ValueKind {
  kNumber,
  kWhole,
  kFlag,
  kText,
  kCharacter,  // one character, or the word "tab"
  kChoice,
  kTexts,   // one text or a list
  kNames,   // the same; one text may hold several with commas between them
  kWholes,  // a list of whole numbers
  kValues,  // a map of names to any values; on the command line "name=value", repeated
};

/// Which runs a setting means something to.
enum class SettingPart {
  kEvery,
  kHead,        // methods that train a classification head: encoders
  kLabelNames,  // encoders that learn one label a text
  kLora,
  kAdapter,
  kSoftPrompt,
  kUpperLayers,
  kContrastive,
  kDistill,
  kFrozen,  // methods that freeze matrices and keep them as floats
  kLayers,  // methods that train through the layers
  kTexts,   // conversations, instructions, completions
  kLabels,  // texts with labels
};

enum class Section { kWhat, kData, kTraining, kLora, kAdapter, kSoftPrompt, kDistill, kEvaluation, kRun };

/// Another name for the same thing in the same unit.
struct Alias {
  std::string_view name;
  std::string_view tools;  // "PEFT, TRL"
};

struct Setting {
  std::string_view key;     // "epochs", "lora.r": in the file also as a map `lora: {r: 8}`
  std::string_view target;  // JSON pointer into the options of a run (fit/options.h)
  Section section = Section::kTraining;
  ValueKind kind = ValueKind::kText;
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool open_low = false, open_high = false;  // the edge itself is not allowed
  bool may_be_empty = false;                 // a list
  std::vector<std::string_view> choices = {};
  std::string_view usual = {};    // what holds where nothing is given, in words
  std::string_view flag = {};     // of the command line, "--r,--lora-r"; empty: --set key=value
  std::string_view word = {};     // what stands for the value in the help
  std::string_view summary = {};  // one line
  SettingPart part = SettingPart::kEvery;
  std::vector<Alias> aliases = {};
};

/// In reading order.
const std::vector<Setting>& tune_settings();
/// By its own key; nullptr where there is none.
const Setting* find_setting(std::string_view key);

std::string_view title_of(Section section);
std::string_view tools_of(std::string_view alias);  // of an alias in the table

/// Methods by the part of the settings that is theirs, as tailor-tune has them (src/tune/methods.cpp; a test holds the
/// two together).
struct MethodPart {
  std::string_view method;
  SettingPart part = SettingPart::kEvery;  // kLora, kAdapter, kSoftPrompt, kUpperLayers, kContrastive, kDistill, or
                                           // kEvery: none of its own
  bool encoders = false, decoders = false;
};
const std::vector<MethodPart>& method_parts();
const MethodPart* find_method_part(std::string_view method);

/// Whether the setting does anything in a run of this method; `encoder`: of the model, as far as it is known.
enum class ModelSort { kUnknown, kEncoder, kDecoder };
bool means_something(const Setting& setting, const MethodPart& method, ModelSort model);

}  // namespace tailor
