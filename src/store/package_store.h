#pragma once
/// Packages by name and version, where they come from, and which version of a name is in use.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "store/audit_log.h"
#include "store/store_context.h"

namespace tailor {

/// What a package was made from and by; empty where unknown.
struct PackageLineage {
  std::string method;
  std::string trial;        // the run that made it, of fit "run/trial"
  std::string data_sha256;  // of the files it was made from, the training file first, with blanks between them
  std::string base_model_id;
  std::string base_model_sha256;
  std::string manifest_sha256;  // of its manifest.json; add() fills it in
  Json scores = Json::object();
};

struct PackageRecord {
  std::string name, version;
  PackageLineage lineage;
  std::filesystem::path path;  // absolute
  bool owned = false;          // inside the store; else it is somebody else's directory, which is never touched
  std::int64_t created_at = 0;
};

enum class PackagePlacement : std::uint8_t {
  kCopy,       // into the store
  kHardLink,   // the same, sharing bytes with the source where the file system can: who changes one then changes both
  kReference,  // stays where it is
};

struct Promotion {
  std::string stage, version;
  std::int64_t at = 0;
  std::string actor;   // id of a key, or a word for the command line
  std::string action;  // "promote" | "rollback"
  bool live = false;   // not undone; the newest of these is in use
};

inline constexpr std::string_view kProduction = "production";

/// What changes something is there together with its entry in the audit log, or not at all. Names, versions and stages
/// follow check_name() (store/names.h), `actor` is the id of a key, or a word. Errors: kInvalidArgument, kNotFound,
/// kIo. Threads: any.
class PackageStore {
 public:
  explicit PackageStore(StoreContext context) : context_(context) {}

  /// Takes in the directory `source`, which must hold manifest.json. Nothing is visible, on the disk or in lists,
  /// before all of it is safe. An existing name and version is kInvalidArgument: versions never change.
  Result<PackageRecord> add(const std::string& name, const std::string& version, const std::filesystem::path& source,
                            PackageLineage lineage, PackagePlacement placement = PackagePlacement::kCopy,
                            const std::string& actor = kCommandLine);
  Result<PackageRecord> find(const std::string& name, const std::string& version) const;
  /// All versions of a name, or with an empty name all packages; the oldest first.
  Result<std::vector<PackageRecord>> list(const std::string& name = {}) const;
  /// With its files where the store owns them. A version that is in use at a stage is kInvalidArgument. A server that
  /// has the files open keeps them until it closes them.
  Status remove(const std::string& name, const std::string& version, const std::string& actor = kCommandLine);

  /// From now on `version` is in use at `stage`; where it is already: nothing.
  Status promote(const std::string& name, const std::string& version, const std::string& actor,
                 std::string_view stage = kProduction);
  /// Back to the version that was in use before, which is returned; again: one further back. kNotFound where none was.
  Result<std::string> rollback(const std::string& name, const std::string& actor, std::string_view stage = kProduction);
  /// The version in use, if any.
  Result<std::optional<PackageRecord>> promoted(const std::string& name, std::string_view stage = kProduction) const;
  /// Everything that was done, the oldest first.
  Result<std::vector<Promotion>> history(const std::string& name, std::string_view stage = kProduction) const;

 private:
  StoreContext context_;
};

}  // namespace tailor
