#include "config/tune_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "config/foreign_keys.h"
#include "config/translation.h"
#include "config/value.h"
#include "text/edit_distance.h"

namespace tailor {
namespace {

struct KnownName {
  const Setting* setting;
  std::string_view tools;  // empty: our own name
};

const std::map<std::string_view, KnownName>& known_names() {
  static const std::map<std::string_view, KnownName> kNames = [] {
    std::map<std::string_view, KnownName> names;
    for (const Setting& setting : tune_settings()) {
      names.emplace(setting.key, KnownName{&setting, ""});
      for (const Alias& alias : setting.aliases) names.emplace(alias.name, KnownName{&setting, alias.tools});
    }
    return names;
  }();
  return kNames;
}

constexpr std::string_view kSections[] = {"lora", "adapter", "soft_prompt", "distill"};

bool is_section(std::string_view name) {
  return std::find(std::begin(kSections), std::end(kSections), name) != std::end(kSections);
}

/// Names under `section`, "" for those of the top level.
std::vector<std::string> names_of(const std::string& section) {
  std::vector<std::string> names;
  for (const auto& [name, known] : known_names()) {
    if (section.empty())
      names.emplace_back(name);
    else if (name.starts_with(section + "."))
      names.emplace_back(name.substr(section.size() + 1));
  }
  if (section.empty()) {
    for (const Translation& translation : translations()) names.emplace_back(translation.name);
    for (const auto known : kSections) names.emplace_back(known);
  }
  return names;
}

class FileReader {
 public:
  explicit FileReader(std::string_view where, bool typed) : where_(where), typed_(typed) {}

  void read(const YamlNode& root) {
    if (root.kind == YamlNode::Kind::kNull) return;
    if (root.kind != YamlNode::Kind::kMap) {
      reader_.config.errors.push_back(
          {ErrorCode::kInvalidArgument,
           fmt::format("{}:{}: expected settings (name: value), seen {}", where_, root.line, seen_of(root)),
           "docs/CONFIG.md shows a file"});
      return;
    }
    for (const YamlEntry& entry : root.entries) item(entry.name, entry, "");
  }
  TuneConfig finish() {
    reader_.finish();
    TuneConfig config = std::move(reader_.config);
    if (!reader_.unchanging.empty()) {
      std::string names;
      for (const std::string& name : reader_.unchanging) names += (names.empty() ? "" : ", ") + name;
      config.notes.push_back(fmt::format("{}: {}: what holds here anyway", where_, names));
    }
    return config;
  }
  void item(const std::string& full, const YamlEntry& entry, const std::string& section) {
    const ConfigItem item{full, &entry.value, at(entry.line)};
    if (const auto before = lines_.find(full); before != lines_.end()) {
      reader_.refuse(item, fmt::format("is given twice, first at {}", before->second), "keep one of them");
      return;
    }
    lines_.emplace(full, item.where);
    const bool map = entry.value.kind == YamlNode::Kind::kMap;
    if (section.empty() && is_section(full) && (map || full != "adapter")) {
      if (entry.value.kind == YamlNode::Kind::kNull) return nothing(item);
      if (!map) return reader_.wrong(item, "a map of settings", fmt::format("write {}: {{…}}", full));
      for (const YamlEntry& inner : entry.value.entries) this->item(full + "." + inner.name, inner, full);
      return;
    }
    const auto known = known_names().find(full);
    if (section.empty()) {  // before our own names: `dtype` has values of other tools beside ours
      if (const Translation* translation = find_translation(full)) {
        if (entry.value.kind == YamlNode::Kind::kNull) return nothing(item);
        return translation->read(reader_, item);
      }
    }
    if (known == known_names().end() && section.empty()) {
      if (const ForeignKey* foreign = find_foreign_key(full)) return this->foreign(*foreign, item);
    }
    if (known == known_names().end()) return unknown(item, section);
    if (entry.value.kind == YamlNode::Kind::kNull) return nothing(item);
    reader_.read(known->second.setting->key, item, known->second.tools, typed_);
  }

 private:
  std::string at(int line) const { return line > 0 ? fmt::format("{}:{}", where_, line) : where_; }
  void nothing(const ConfigItem& item) {
    reader_.note(fmt::format("{}: {} is empty: as if it were not there", item.where, item.name));
  }
  void foreign(const ForeignKey& key, const ConfigItem& item) {
    if (key.any_value) return reader_.note(fmt::format("{}: {} changes nothing: {}", item.where, item.name, key.what));
    if (is_neutral(key, plain_json(*item.value))) return reader_.neutral(item);
    reader_.refuse(item, fmt::format("({}) is {}, which means nothing here", key.tools, seen_of(*item.value)),
                   std::string(key.what));
  }
  void unknown(const ConfigItem& item, const std::string& section) {
    const std::string name = section.empty() ? item.name : item.name.substr(section.size() + 1);
    const std::string nearest = nearest_name(name, names_of(section));
    reader_.config.errors.push_back(
        {ErrorCode::kInvalidArgument, fmt::format("{}: there is no setting \"{}\"", item.where, item.name),
         nearest.empty() ? "`tailor config schema` and docs/CONFIG.md list the settings"
                         : fmt::format("did you mean {}{}?", section.empty() ? "" : section + ".", nearest)});
  }

  std::string where_;
  bool typed_;
  ConfigReader reader_;
  std::map<std::string, std::string> lines_;
};

}  // namespace

const GivenSetting* TuneConfig::find(std::string_view key) const {
  for (const GivenSetting& setting : given) {
    if (setting.setting->key == key) return &setting;
  }
  return nullptr;
}

TuneConfig read_tune_config(const YamlNode& root, std::string_view where) {
  FileReader reader(where, false);
  reader.read(root);
  return reader.finish();
}

TuneConfig read_set_words(const std::vector<std::string>& words) {
  FileReader reader("--set", true);
  std::vector<Error> errors;
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      errors.push_back(
          {ErrorCode::kInvalidArgument, fmt::format("--set {}: expected key=value", word), "--set schedule=cosine"});
      continue;
    }
    auto value = parse_yaml(std::string_view(word).substr(equals + 1), "--set " + word.substr(0, equals));
    if (!value) {
      errors.push_back(value.error());
      continue;
    }
    YamlEntry entry{word.substr(0, equals), 0, std::move(*value)};
    const std::string section = entry.name.substr(0, entry.name.find('.'));
    reader.item(entry.name, entry, section != entry.name && is_section(section) ? section : "");
  }
  TuneConfig config = reader.finish();
  config.errors.insert(config.errors.begin(), errors.begin(), errors.end());
  return config;
}

void add_flag(TuneConfig& config, const Setting& setting, std::string_view flag,
              const std::vector<std::string>& words) {
  if (flag.starts_with("--no-")) return add_value(config, setting, flag, false);
  if (setting.kind == ValueKind::kFlag) return add_value(config, setting, flag, true);
  if (setting.kind == ValueKind::kValues) {
    auto values = read_name_values(words, flag);
    if (!values) return config.errors.push_back(values.error());
    return add_value(config, setting, flag, std::move(*values));
  }
  YamlNode node;
  const auto scalar = [](const std::string& word) {
    YamlNode out;
    out.kind = YamlNode::Kind::kScalar;
    out.text = word;
    return out;
  };
  const bool list = setting.kind == ValueKind::kTexts || setting.kind == ValueKind::kNames;
  if (list) {
    node.kind = YamlNode::Kind::kList;
    for (const std::string& word : words) node.items.push_back(scalar(word));
  } else if (!words.empty()) {
    node = scalar(words.back());
  }
  if (auto value = read_value(setting, node, true)) return add_value(config, setting, flag, std::move(*value));
  config.errors.push_back({ErrorCode::kInvalidArgument,
                           fmt::format("{} should be {}, it is {}", flag, expected_of(setting), seen_of(node)), ""});
}

void add_value(TuneConfig& config, const Setting& setting, std::string_view flag, Json value) {
  config.given.push_back({&setting, std::move(value), std::string(flag), "", std::string(flag)});
}

void lay_over(TuneConfig& base, TuneConfig over) {
  for (GivenSetting& setting : over.given) {
    std::erase_if(base.given, [&](const GivenSetting& known) { return known.setting == setting.setting; });
    base.given.push_back(std::move(setting));
  }
  base.notes.insert(base.notes.end(), over.notes.begin(), over.notes.end());
  base.errors.insert(base.errors.end(), over.errors.begin(), over.errors.end());
}

void check_together(TuneConfig& config) {
  const auto refuse = [&](const GivenSetting& given, std::string message, std::string hint) {
    config.errors.push_back(
        {ErrorCode::kInvalidArgument, fmt::format("{}: {}", given.where, message), std::move(hint)});
  };
  const GivenSetting* named = config.find("method");
  const std::string name = named == nullptr ? "lora" : named->value.get<std::string>();
  const MethodPart* method = find_method_part(name);
  if (method == nullptr) {
    std::vector<std::string> known;
    for (const MethodPart& part : method_parts()) known.emplace_back(part.method);
    const std::string nearest = nearest_name(name, known);
    refuse(*named, fmt::format("there is no method {} of tuning", name),
           (nearest.empty() ? std::string() : fmt::format("did you mean {}? ", nearest)) +
               "`tailor tune --method list` shows them");
  }
  const auto asks_for = [&](std::string_view start) {  // of low-rank updates
    const GivenSetting* given = config.find("lora." + std::string(start));
    return name == start || (given != nullptr && given->value == true);
  };
  if (asks_for("dora") && asks_for("pissa")) {
    const GivenSetting* given = config.find("lora.pissa");
    refuse(given != nullptr ? *given : *config.find("lora.dora"), "dora and pissa exclude each other",
           "take one of them");
  }
  if (const GivenSetting* dtype = config.find("dtype"); dtype != nullptr && dtype->value == "bf16" && asks_for("pissa"))
    refuse(*dtype, "dtype is bf16, but pissa takes its start out of the base, which has to stay exact for that",
           "take dtype f32, or method lora");
  const bool table = config.find("label") != nullptr || config.find("text") != nullptr;
  for (const GivenSetting& given : config.given) {
    if (method != nullptr && !means_something(*given.setting, *method, ModelSort::kUnknown))
      refuse(given, fmt::format("{} means nothing to method {}", given.setting->key, name), "leave it out");
    if (table && given.setting->part == SettingPart::kTexts)
      refuse(given, fmt::format("{} means nothing to texts with labels, only to conversations", given.setting->key),
             "leave it out");
  }
}

Json options_of(const TuneConfig& config) {
  Json options = Json::object();
  for (const GivenSetting& given : config.given)
    options[Json::json_pointer(std::string(given.setting->target))] = given.value;
  return options;
}

}  // namespace tailor
