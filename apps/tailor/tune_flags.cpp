#include "apps/tailor/tune_flags.h"

#include <fmt/format.h>

namespace tailor {
namespace {

bool is_list(const Setting& setting) {
  return setting.kind == ValueKind::kNames || setting.kind == ValueKind::kTexts || setting.kind == ValueKind::kValues;
}

}  // namespace

void TuneFlags::add(CLI::App& verb, const DataOptions& bound) {
  bound_ = &bound;
  verb.add_option("--config", config_file_, "settings from a YAML file (docs/CONFIG.md); flags win over it")
      ->type_name("FILE");
  verb.add_option("--set", sets_, "any setting by its name in that file")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  for (const Setting& setting : tune_settings()) {
    if (setting.flag.empty()) continue;
    const std::string names(setting.flag), first = names.substr(0, names.find(','));
    Flag& flag = flags_.emplace_back(Flag{&setting, verb.get_option_no_throw(first), first, true, false, {}, {}});
    if (flag.option != nullptr) continue;
    flag.bound = false;
    if (first.starts_with("--no-")) {
      flag.option = verb.add_flag(names, flag.on, fmt::format("do not {}", setting.summary));
    } else if (setting.kind == ValueKind::kFlag) {
      flag.option = verb.add_flag(names, flag.on, std::string(setting.summary));
    } else {
      const std::string usual = setting.usual.empty() ? "" : fmt::format(" ({})", setting.usual);
      const std::string help = std::string(setting.summary) + usual;
      flag.option = is_list(setting) ? verb.add_option(names, flag.words, help)->allow_extra_args(false)
                                     : verb.add_option(names, flag.word, help);
      flag.option->type_name(std::string(setting.word));
    }
    if (setting.section != Section::kWhat && setting.section != Section::kData)
      flag.option->group(std::string(title_of(setting.section)));
  }
}

Result<TuneConfig> TuneFlags::read() const {
  TuneConfig config;
  if (!config_file_.empty()) {
    TAILOR_TRY(const YamlNode root, read_yaml(config_file_));
    config = read_tune_config(root, config_file_);
  }
  TuneConfig line;
  TuneOptions options;
  static_cast<DataOptions&>(options) = *bound_;
  const Json bound = to_json(options);
  for (const Flag& flag : flags_) {
    if (flag.option->count() == 0) continue;
    if (flag.bound)
      add_value(line, *flag.setting, flag.name, bound.at(Json::json_pointer(std::string(flag.setting->target))));
    else
      add_flag(line, *flag.setting, flag.name, is_list(*flag.setting) ? flag.words : std::vector{flag.word});
  }
  TuneConfig set = read_set_words(sets_);
  for (const GivenSetting& given : set.given) {
    if (const GivenSetting* flag = line.find(given.setting->key); flag != nullptr && flag->value != given.value)
      set.errors.push_back({ErrorCode::kInvalidArgument,
                            fmt::format("--set {} and {} say different things", given.name, flag->name),
                            "keep one of them"});
  }
  lay_over(line, std::move(set));
  lay_over(config, std::move(line));
  check_together(config);
  return config;
}

Error as_one(const std::vector<Error>& errors) {
  Error all = errors.front();
  for (std::size_t i = 1; i < errors.size(); ++i) {
    if (!all.hint.empty()) all.message += "\n  " + all.hint;
    all.message += "\ntailor: " + errors[i].message;
    all.hint = errors[i].hint;
  }
  return all;
}

}  // namespace tailor
