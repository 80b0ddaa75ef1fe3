#include "serve/stored_package.h"

#include <fmt/format.h>

#include "text/edit_distance.h"

namespace tailor {

Result<PackageRecord> stored_package(Store& store, const std::string& reference) {
  const std::size_t at = reference.rfind('@');
  const std::string name = reference.substr(0, at);
  TAILOR_TRY(const auto known, store.packages().list(name));
  std::string versions;
  for (const PackageRecord& record : known) {
    if (at != std::string::npos && record.version == reference.substr(at + 1)) return record;
    versions += (versions.empty() ? "" : ", ") + record.version;
  }
  if (known.empty()) {
    std::vector<std::string> names;
    TAILOR_TRY(const auto all, store.packages().list());
    for (const PackageRecord& record : all) names.push_back(record.name);
    const std::string nearest = nearest_name(name, names);
    return Error{ErrorCode::kNotFound,
                 fmt::format("there is no package {} in {}", name, store.directory().root().string()),
                 nearest.empty() ? "`tailor packages add` takes one in" : fmt::format("did you mean {}?", nearest)};
  }
  if (at != std::string::npos)
    return Error{ErrorCode::kNotFound, fmt::format("package {} has no version {}", name, reference.substr(at + 1)),
                 "there are: " + versions};
  TAILOR_TRY(auto promoted, store.packages().promoted(name));
  if (promoted) return *promoted;
  return Error{ErrorCode::kNotFound,
               fmt::format("no version of package {} is in production; there are: {}", name, versions),
               fmt::format("`tailor packages promote {} VERSION`, or name one as {}@VERSION", name, name)};
}

}  // namespace tailor
