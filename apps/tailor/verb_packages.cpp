/// `tailor packages`: what a server serves by name, in versions.

#include <fmt/format.h>

#include <map>
#include <memory>

#include "apps/tailor/store_options.h"
#include "apps/tailor/verbs.h"
#include "recipes/packages.h"

namespace tailor {
namespace {

struct PackageWords {
  std::string data, name, version, placement = "copy";
  std::filesystem::path directory;
  bool json = false, promote = false;
};

const std::map<std::string, PackagePlacement> kPlacements = {{"copy", PackagePlacement::kCopy},
                                                             {"link", PackagePlacement::kHardLink},
                                                             {"reference", PackagePlacement::kReference}};

Json to_json(const PackageRecord& record, bool production) {
  return {{"name", record.name},
          {"version", record.version},
          {"production", production},
          {"method", record.lineage.method},
          {"trial", record.lineage.trial},
          {"data_sha256", record.lineage.data_sha256},
          {"base_model", record.lineage.base_model_id},
          {"base_model_sha256", record.lineage.base_model_sha256},
          {"manifest_sha256", record.lineage.manifest_sha256},
          {"scores", record.lineage.scores},
          {"path", record.path.string()},
          {"owned", record.owned},
          {"created_at", record.created_at}};
}

/// Packages of earlier versions tell less.
std::string or_unknown(const std::string& text, const char* before) {
  return text.empty() ? "not known" : before + text;
}

Result<bool> in_production(Store& store, const PackageRecord& record) {
  TAILOR_TRY(const auto promoted, store.packages().promoted(record.name));
  return promoted && promoted->version == record.version;
}

Result<int> list(const PackageWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  TAILOR_TRY(const auto records, store->packages().list());
  Json all = Json::array();
  if (!words.json && records.empty()) fmt::print("there are no packages; `tailor packages add DIR` takes one in\n");
  if (!words.json && !records.empty())
    fmt::print("{:<24} {:<10} {:<11} {:<20} {:<26} {}\n", "name", "version", "", "method", "base model", "added");
  for (const PackageRecord& record : records) {
    TAILOR_TRY(const bool production, in_production(*store, record));
    if (words.json)
      all.push_back(to_json(record, production));
    else
      fmt::print("{:<24} {:<10} {:<11} {:<20} {:<26} {}\n", record.name, record.version, production ? "production" : "",
                 record.lineage.method, record.lineage.base_model_id, utc(record.created_at));
  }
  if (words.json) fmt::print("{}\n", dump_json(all, 2));
  return 0;
}

Result<int> show(const PackageWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  const std::size_t at = words.name.rfind('@');
  const std::string name = words.name.substr(0, at);
  TAILOR_TRY(const auto records, store->packages().list(name));
  if (records.empty())
    return Error{ErrorCode::kNotFound, fmt::format("there is no package {}", name),
                 "`tailor packages list` names those there are"};
  Json versions = Json::array();
  for (const PackageRecord& record : records) {
    if (at != std::string::npos && record.version != words.name.substr(at + 1)) continue;
    TAILOR_TRY(const bool production, in_production(*store, record));
    versions.push_back(to_json(record, production));
    if (words.json) continue;
    fmt::print(
        "{}@{}{}\n  method      {}\n  made by     {}\n  data        {}\n  base model  {} {}\n  scores      {}\n"
        "  manifest    sha256 {}\n  path        {}{}\n  added       {}\n",
        record.name, record.version, production ? "  in production" : "", record.lineage.method,
        or_unknown(record.lineage.trial, ""), or_unknown(record.lineage.data_sha256, "sha256 "),
        record.lineage.base_model_id, record.lineage.base_model_sha256.substr(0, 12), dump_json(record.lineage.scores),
        record.lineage.manifest_sha256, record.path.string(), record.owned ? "" : " (yours)", utc(record.created_at));
  }
  if (versions.empty())
    return Error{ErrorCode::kNotFound, fmt::format("there is no {}", words.name),
                 fmt::format("`tailor packages show {}` lists its versions", name)};
  TAILOR_TRY(const auto history, store->packages().history(name));
  Json steps = Json::array();
  for (const Promotion& step : history) {
    steps.push_back({{"action", step.action}, {"version", step.version}, {"at", step.at}, {"actor", step.actor}});
    if (!words.json) fmt::print("{}  {:<8} {} by {}\n", utc(step.at), step.action, step.version, step.actor);
  }
  if (words.json) fmt::print("{}\n", dump_json(Json{{"versions", versions}, {"history", steps}}, 2));
  return 0;
}

Result<int> add(const PackageWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, false));
  TAILOR_TRY(
      const PackageRecord record,
      add_package(*store, {words.directory, words.name, words.version, kPlacements.at(words.placement)}, kCommandLine));
  if (words.promote) TAILOR_CHECK(store->packages().promote(record.name, record.version, kCommandLine));
  fmt::print("{}@{}{}: {}\n", record.name, record.version, words.promote ? ", in production" : "",
             record.path.string());
  return 0;
}

Result<int> promote(const PackageWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  TAILOR_CHECK(store->packages().promote(words.name, words.version, kCommandLine));
  fmt::print("{}@{} is in production; a running server takes it up on SIGHUP or when it is started again\n", words.name,
             words.version);
  return 0;
}

Result<int> rollback(const PackageWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  TAILOR_TRY(const std::string version, store->packages().rollback(words.name, kCommandLine));
  fmt::print("{}@{} is in production again; a running server takes it up on SIGHUP or when it is started again\n",
             words.name, version);
  return 0;
}

Result<int> remove(const PackageWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  TAILOR_CHECK(store->packages().remove(words.name, words.version, kCommandLine));
  fmt::print("{}@{} is removed\n", words.name, words.version);
  return 0;
}

}  // namespace

void add_packages(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("packages", "packages by name and version, and which version is in production");
  verb->require_subcommand(1);
  verb->footer(
      "Examples:  tailor packages add runs/support/package --name support --promote\n"
      "           tailor packages promote support 2\n"
      "           tailor packages rollback support\n"
      "           tailor serve support");
  auto words = std::make_shared<PackageWords>();
  PackageWords& w = *words;
  const auto make = [&](const char* name, const char* what, Result<int> (*run)(const PackageWords&)) {
    auto* sub = verb->add_subcommand(name, what);
    add_data_option(*sub, w.data);
    sub->callback([&invocation, words, run] { invocation.run = [words, run] { return run(*words); }; });
    return sub;
  };
  make("list", "all packages", list)->add_flag("--json", w.json, "as JSON");
  auto* show_verb = make("show", "versions of a package and what was done with them", show);
  show_verb->add_option("name", w.name, "its name, or NAME@VERSION")->required()->type_name("NAME");
  show_verb->add_flag("--json", w.json, "as JSON");
  auto* add_verb = make("add", "takes a package of `fit` or `tune` in; every file is checked", add);
  add_verb->add_option("directory", w.directory, "with manifest.json")->required()->type_name("DIR");
  add_verb->add_option("--name", w.name, "what it is called (as its directory)")->type_name("NAME");
  add_verb->add_option("--version", w.version, "letters and digits (the next whole number)")->type_name("VERSION");
  add_verb->add_option("--as", w.placement, "copy; link: shares bytes with the source; reference: stays where it is")
      ->check(CLI::IsMember({"copy", "link", "reference"}).description(""))
      ->capture_default_str()
      ->type_name("WAY");
  add_verb->add_flag("--promote", w.promote, "and puts it in production");
  for (auto* sub : {make("promote", "this version is in production from now on", promote),
                    make("remove", "removes a version that is not in production", remove)}) {
    sub->add_option("name", w.name, "of the package")->required()->type_name("NAME");
    sub->add_option("version", w.version, "as `tailor packages list` shows it")->required()->type_name("VERSION");
  }
  make("rollback", "back to the version that was in production before", rollback)
      ->add_option("name", w.name, "of the package")
      ->required()
      ->type_name("NAME");
}

}  // namespace tailor
