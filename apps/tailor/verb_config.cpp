/// `tailor config`: the schema of the configuration file, and what a file says.

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "apps/tailor/verbs.h"
#include "config/schema.h"
#include "config/tune_config.h"

namespace tailor {
namespace {

Json as_json(const TuneConfig& config) {
  Json settings = Json::object(), errors = Json::array();
  for (const GivenSetting& given : config.given) {
    settings[std::string(given.setting->key)] =
        Json{{"value", given.value}, {"name", given.name}, {"where", given.where}};
  }
  for (const Error& error : config.errors) errors.push_back(Json{{"message", error.message}, {"hint", error.hint}});
  return Json{{"settings", settings}, {"notes", config.notes}, {"errors", errors}};
}

/// Settings in the order of the table, each with its value and where it comes from.
void print_settings(const TuneConfig& config) {
  std::size_t width = 0, values = 0;
  for (const GivenSetting& given : config.given) {
    width = std::max(width, given.setting->key.size());
    values = std::max(values, std::min<std::size_t>(40, dump_json(given.value).size()));
  }
  for (const Setting& setting : tune_settings()) {
    const GivenSetting* given = config.find(setting.key);
    if (given == nullptr) continue;
    std::string from = given->where;
    if (given->name != setting.key) from += fmt::format(", by {}", given->name);
    if (!given->tools.empty()) from += fmt::format(" ({})", given->tools);
    fmt::print("{:<{}}  {:<{}}  {}\n", setting.key, width, dump_json(given->value), values, from);
  }
}

Result<int> validate(const std::string& file, bool json) {
  TAILOR_TRY(const YamlNode root, read_yaml(file));
  TuneConfig config = read_tune_config(root, file);
  check_together(config);
  if (json) {
    fmt::print("{}\n", dump_json(as_json(config), 2));
    return config.errors.empty() ? 0 : 2;
  }
  print_settings(config);
  for (const std::string& note : config.notes) fmt::print("note: {}\n", note);
  std::fflush(stdout);
  for (const Error& error : config.errors) {
    fmt::print(stderr, "tailor: {}\n", error.message);
    if (!error.hint.empty()) fmt::print(stderr, "  {}\n", error.hint);
  }
  if (!config.errors.empty()) {
    fmt::print(stderr, "{}: {} error(s)\n", file, config.errors.size());
    return 2;
  }
  fmt::print("{}: {} setting(s), no errors; files and models are not looked at\n", file, config.given.size());
  return 0;
}

}  // namespace

void add_config(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("config", "configuration files of tune: schema, check");
  verb->require_subcommand(1);
  verb->footer(
      "Examples:  tailor config validate tune.yaml\n           tailor config schema > tailor-tune.schema.json");
  auto file = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  auto* schema = verb->add_subcommand("schema", "JSON Schema (2020-12) of a configuration file");
  schema->callback([&invocation] {
    invocation.run = []() -> Result<int> {
      fmt::print("{}\n", dump_json(tune_config_schema(), 2));
      return 0;
    };
  });
  auto* keys = verb->add_subcommand("keys", "every key with its values, aliases and flag, as Markdown");
  keys->callback([&invocation] {
    invocation.run = []() -> Result<int> {
      fmt::print("{}", tune_config_tables());
      return 0;
    };
  });
  auto* check = verb->add_subcommand("validate", "say everything that is wrong with a file, and what its settings are");
  check->add_option("file", *file, "YAML or JSON")->required()->type_name("FILE");
  check->add_flag("--json", *json, "as JSON");
  check->callback([&invocation, file, json] { invocation.run = [file, json] { return validate(*file, *json); }; });
}

}  // namespace tailor
