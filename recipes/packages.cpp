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
  return store.packages().add(name, version, wanted.directory, lineage, wanted.placement, actor);
}

}  // namespace tailor
