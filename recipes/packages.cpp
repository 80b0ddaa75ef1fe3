#include "recipes/packages.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "fit/package.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

Result<std::string> next_version(const PackageStore& packages, const std::string& name) {
  TAILOR_TRY(const auto known, packages.list(name));
  std::int64_t highest = 0;
  for (const PackageRecord& record : known) {
    std::int64_t number = 0;
    const char* end = record.version.data() + record.version.size();
    if (std::from_chars(record.version.data(), end, number).ptr == end) highest = std::max(highest, number);
  }
  return std::to_string(highest + 1);
}

Status no_at(std::string_view text, std::string_view what) {
  if (text.find('@') == std::string_view::npos) return {};
  return Error{ErrorCode::kInvalidArgument, fmt::format("{} \"{}\" holds an @", what, text),
               "NAME@VERSION is how a version is asked for"};
}

Status note(Store& store, const std::string& actor, const char* action, const std::string& object,
            Json details = Json::object()) {
  TAILOR_CHECK(store.audit().append({actor, action, object, std::move(details)}));
  return {};
}

}  // namespace

Result<PackageRecord> add_package(Store& store, const PackageAdd& wanted, const std::string& actor) {
  TAILOR_TRY(const PackageManifest manifest, read_package(wanted.directory));
  const fs::path whole = fs::weakly_canonical(wanted.directory);
  std::string name = wanted.name;
  if (name.empty()) name = (whole.filename() == "package" ? whole.parent_path() : whole).filename().string();
  TAILOR_CHECK(no_at(name, "package name"));
  TAILOR_CHECK(no_at(wanted.version, "package version"));
  std::string version = wanted.version;
  if (version.empty()) {
    TAILOR_TRY(version, next_version(store.packages(), name));
  }
  PackageLineage lineage{.method = manifest.method,
                         .trial = manifest.trial,
                         .data_sha256 = fmt::format("{}", fmt::join(data_hashes(manifest), " ")),
                         .base_model_id = manifest.base.id,
                         .base_model_sha256 = manifest.base.sha256,
                         .scores = manifest.scores};
  TAILOR_TRY(PackageRecord record, store.packages().add(name, version, wanted.directory, lineage, wanted.placement));
  TAILOR_CHECK(note(store, actor, "package.add", name + "@" + version,
                    {{"manifest_sha256", record.lineage.manifest_sha256}, {"owned", record.owned}}));
  return record;
}

Status promote_package(Store& store, const std::string& name, const std::string& version, const std::string& actor) {
  TAILOR_CHECK(store.packages().promote(name, version, actor));
  return note(store, actor, "package.promote", name + "@" + version);
}

Result<std::string> roll_package_back(Store& store, const std::string& name, const std::string& actor) {
  TAILOR_TRY(const std::string version, store.packages().rollback(name, actor));
  TAILOR_CHECK(note(store, actor, "package.rollback", name + "@" + version));
  return version;
}

Status remove_package(Store& store, const std::string& name, const std::string& version, const std::string& actor) {
  TAILOR_CHECK(store.packages().remove(name, version));
  return note(store, actor, "package.remove", name + "@" + version);
}

}  // namespace tailor
