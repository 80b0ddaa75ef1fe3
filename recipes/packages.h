#pragma once
/// A package is taken into a store.

#include <filesystem>
#include <string>

#include "core/result.h"
#include "store/store.h"

namespace tailor {

struct PackageAdd {
  std::filesystem::path directory;  // with manifest.json; every file is checked against it
  std::string name;                 // empty: as the directory is called (its parent, where it is called "package")
  std::string version;              // empty: the next whole number
  PackagePlacement placement = PackagePlacement::kCopy;
};
/// Its lineage is what the package's manifest says. `actor`: id of a key, or a word.
Result<PackageRecord> add_package(Store& store, const PackageAdd& wanted, const std::string& actor);

}  // namespace tailor
