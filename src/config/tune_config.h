#pragma once
/// The settings of a run of `tailor tune` as somebody gave them: in a YAML (or JSON) file, by flags, by --set. Names of
/// PEFT, TRL, Axolotl and LLaMA-Factory are understood where they mean the same or can be translated.

#include <string>
#include <string_view>
#include <vector>

#include "config/setting.h"
#include "config/yaml.h"
#include "core/json.h"

namespace tailor {

struct GivenSetting {
  const Setting* setting = nullptr;
  Json value;         // as the options of a run hold it
  std::string name;   // as it was given: "num_epochs"; several joined by ", "
  std::string tools;  // whose name that is; empty: our own
  std::string where;  // "tune.yaml:7", "--epochs"
};

struct TuneConfig {
  std::vector<GivenSetting> given;  // one a setting at most
  std::vector<std::string> notes;   // what was accepted and changes nothing, in sentences
  std::vector<Error> errors;        // all of them, in the order of the file

  const GivenSetting* find(std::string_view key) const;
};

/// Everything wrong with the file is in `errors`, everything accepted that changes nothing in `notes`. `where` names
/// the file in both.
TuneConfig read_tune_config(const YamlNode& root, std::string_view where);

/// "key=value" of --set; the value is read as YAML, the key may be any name of the file.
TuneConfig read_set_words(const std::vector<std::string>& words);

/// A flag of the command line with its words, such as {"--epochs", {"3"}}. A flag "--no-…" has no words and says false.
void add_flag(TuneConfig& config, const Setting& setting, std::string_view flag, const std::vector<std::string>& words);
/// A value that was read already.
void add_value(TuneConfig& config, const Setting& setting, std::string_view flag, Json value);

/// What `over` gives takes the place of what `base` gives.
void lay_over(TuneConfig& base, TuneConfig over);

/// Adds errors for what does not fit together: an unknown method, settings that mean nothing to it or to the sort of
/// data.
void check_together(TuneConfig& config);

/// The options of a run, as fit/options.h reads them; only what was given.
Json options_of(const TuneConfig& config);

}  // namespace tailor
