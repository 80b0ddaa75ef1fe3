#include "store/package_store.h"

#include <fmt/format.h>

#include <tuple>
#include <utility>

#include "core/files.h"
#include "core/hash.h"
#include "store/durable.h"
#include "store/intents.h"
#include "store/json_text.h"
#include "store/names.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kSelect =
    "SELECT name, version, path, created_at, method, trial, data_sha256, base_id, base_sha256, manifest_sha256, scores "
    "FROM packages ";

Result<PackageRecord> package_of(const Row& row, const StoreDirectory& directory) {
  PackageRecord record;
  record.name = row.text(0);
  record.version = row.text(1);
  const fs::path path = row.text(2);
  record.owned = path.is_relative();
  record.path = record.owned ? directory.packages() / path : path;
  record.created_at = row.integer(3);
  record.lineage = {.method = row.text(4),
                    .trial = row.text(5),
                    .data_sha256 = row.text(6),
                    .base_model_id = row.text(7),
                    .base_model_sha256 = row.text(8),
                    .manifest_sha256 = row.text(9)};
  TAILOR_TRY(record.lineage.scores, parse_json(row.text(10), "scores of package " + record.name));
  return record;
}

Status check_names(std::string_view name, std::string_view version) {
  TAILOR_CHECK(check_name(name, "package name"));
  return check_name(version, "package version");
}

Error unknown(const std::string& name, const std::string& version) {
  return {ErrorCode::kNotFound, fmt::format("there is no package {} of version {}", name, version),
          "`tailor packages list` names those there are"};
}

Error taken(const std::string& name, const std::string& version) {
  return {ErrorCode::kInvalidArgument, fmt::format("package {} has a version {} already", name, version),
          "versions never change; name another one"};
}

Result<bool> exists(Transaction& transaction, const std::string& name, const std::string& version) {
  return transaction.first("SELECT 1 FROM packages WHERE name = ? AND version = ?", {name, version}, {});
}

/// Version in use; empty: none.
Result<std::string> version_in_use(Transaction& transaction, std::string_view name, std::string_view stage) {
  std::string version;
  TAILOR_CHECK(transaction.first(
      "SELECT version FROM promotions WHERE name = ? AND stage = ? AND live = 1 ORDER BY seq DESC LIMIT 1",
      {name, stage}, [&](const Row& row) -> Status {
        version = row.text(0);
        return {};
      }));
  return version;
}

}  // namespace

Result<PackageRecord> PackageStore::add(const std::string& name, const std::string& version, const fs::path& source,
                                        PackageLineage lineage, PackagePlacement placement, const std::string& actor) {
  TAILOR_CHECK(check_names(name, version));
  std::error_code error;
  const fs::path from = fs::canonical(source, error);
  if (error) return io_error("cannot read", source, error.value());
  TAILOR_TRY(lineage.manifest_sha256, sha256_file(from / "manifest.json"));
  TAILOR_TRY(const std::string scores, json_text(lineage.scores, "scores of a package", std::size_t{1} << 20));
  const bool owned = placement != PackagePlacement::kReference;
  const std::string path = owned ? (fs::path(name) / version).string() : from.string();
  const std::string intent = "packages/" + path;

  const fs::path target = context_.directory.packages() / path;
  if (owned) {
    TAILOR_TRY(Transaction transaction, context_.database.write());
    TAILOR_TRY(const bool known, exists(transaction, name, version));
    if (known) return taken(name, version);
    TAILOR_CHECK(declare_intent(transaction, context_.directory, intent));
    if (fs::exists(target, error)) {  // it would be taken away again with what fails from here on
      return Error{ErrorCode::kInvalidArgument, target.string() + " is there, but the store does not know it",
                   "move that directory out of the store"};
    }
    TAILOR_CHECK(transaction.commit());
  }
  const auto place = [&]() -> Status {
    if (owned) {
      const fs::path staged = context_.directory.staging();
      const Status copied = copy_tree(from, staged, placement == PackagePlacement::kHardLink);
      if (!copied) {
        std::ignore = remove_tree(staged);  // what stays goes with the session
        return copied;
      }
      TAILOR_CHECK(make_private_directory(target.parent_path()));
      TAILOR_CHECK(sync_directory(context_.directory.packages()));
      TAILOR_CHECK(publish(staged, target));
    }
    TAILOR_TRY(Transaction transaction, context_.database.write());
    TAILOR_TRY(const bool known, exists(transaction, name, version));
    if (known) return taken(name, version);
    TAILOR_CHECK(transaction.run(
        "INSERT INTO packages(name, version, path, created_at, method, trial, data_sha256, base_id, base_sha256, "
        "manifest_sha256, scores) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        {name, version, path, context_.clock(), lineage.method, lineage.trial, lineage.data_sha256,
         lineage.base_model_id, lineage.base_model_sha256, lineage.manifest_sha256, scores}));
    if (owned) TAILOR_CHECK(settle_intent(transaction, intent));
    const Json details{{"manifest_sha256", lineage.manifest_sha256}, {"owned", owned}};
    TAILOR_CHECK(append_audit(transaction, context_.clock(), {actor, "package.add", name + "@" + version, details}));
    return transaction.commit();
  };
  const Status placed = place();
  if (!placed) {
    if (owned) abandon_intent(context_.database, context_.directory, intent);
    return placed.error();
  }
  return find(name, version);
}

Result<PackageRecord> PackageStore::find(const std::string& name, const std::string& version) const {
  TAILOR_CHECK(check_names(name, version));
  TAILOR_TRY(Transaction transaction, context_.database.read());
  PackageRecord record;
  TAILOR_TRY(const bool found, transaction.first(fmt::format("{} WHERE name = ? AND version = ?", kSelect),
                                                 {name, version}, [&](const Row& row) -> Status {
                                                   TAILOR_TRY(record, package_of(row, context_.directory));
                                                   return {};
                                                 }));
  if (!found) return unknown(name, version);
  return record;
}

Result<std::vector<PackageRecord>> PackageStore::list(const std::string& name) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  std::vector<PackageRecord> records;
  TAILOR_CHECK(transaction.each(fmt::format("{} WHERE name = ?1 OR ?1 = '' ORDER BY seq", kSelect), {name},
                                [&](const Row& row) -> Status {
                                  TAILOR_TRY(PackageRecord record, package_of(row, context_.directory));
                                  records.push_back(std::move(record));
                                  return {};
                                }));
  return records;
}

Status PackageStore::remove(const std::string& name, const std::string& version, const std::string& actor) {
  TAILOR_TRY(const PackageRecord record, find(name, version));
  const std::string intent = fmt::format("packages/{}/{}", name, version);
  {
    TAILOR_TRY(Transaction transaction, context_.database.write());
    TAILOR_TRY(const bool known, exists(transaction, name, version));
    if (!known) return unknown(name, version);
    std::vector<std::string> stages;
    TAILOR_CHECK(
        transaction.each("SELECT DISTINCT stage FROM promotions WHERE name = ?", {name}, [&](const Row& row) -> Status {
          stages.push_back(row.text(0));
          return {};
        }));
    for (const std::string& stage : stages) {
      TAILOR_TRY(const std::string in_use, version_in_use(transaction, name, stage));
      if (in_use != version) continue;
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("package {} version {} is in use: {}", name, version, stage),
                   "promote another version first"};
    }
    TAILOR_CHECK(transaction.run("UPDATE promotions SET live = 0 WHERE name = ? AND version = ?", {name, version}));
    TAILOR_CHECK(transaction.run("DELETE FROM packages WHERE name = ? AND version = ?", {name, version}));
    if (record.owned) TAILOR_CHECK(declare_intent(transaction, context_.directory, intent));
    TAILOR_CHECK(append_audit(transaction, context_.clock(), {actor, "package.remove", name + "@" + version}));
    TAILOR_CHECK(transaction.commit());
  }
  if (!record.owned) return {};
  const fs::path aside = context_.directory.staging();
  const Status moved = publish(record.path, aside);
  if (!moved && moved.error().code != ErrorCode::kNotFound) return moved;
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_CHECK(settle_intent(transaction, intent));
  TAILOR_CHECK(transaction.commit());
  std::ignore = remove_tree(aside);  // what stays goes with the session
  return {};
}

Status PackageStore::promote(const std::string& name, const std::string& version, const std::string& actor,
                             std::string_view stage) {
  TAILOR_CHECK(check_names(name, version));
  TAILOR_CHECK(check_name(stage, "stage"));
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(const bool known, exists(transaction, name, version));
  if (!known) return unknown(name, version);
  TAILOR_TRY(const std::string in_use, version_in_use(transaction, name, stage));
  if (in_use == version) return {};
  TAILOR_CHECK(transaction.run(
      "INSERT INTO promotions(name, stage, version, at, actor, action, live) VALUES (?, ?, ?, ?, ?, 'promote', 1)",
      {name, stage, version, context_.clock(), actor}));
  TAILOR_CHECK(append_audit(transaction, context_.clock(),
                            {actor, "package.promote", name + "@" + version, {{"stage", stage}}}));
  return transaction.commit();
}

Result<std::string> PackageStore::rollback(const std::string& name, const std::string& actor, std::string_view stage) {
  TAILOR_CHECK(check_name(name, "package name"));
  TAILOR_CHECK(check_name(stage, "stage"));
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(const std::string in_use, version_in_use(transaction, name, stage));
  std::int64_t seq = 0;
  std::string version;
  TAILOR_TRY(const bool found,
             transaction.first("SELECT seq, version FROM promotions WHERE name = ? AND stage = ? AND live = 1 AND "
                               "version <> ? ORDER BY seq DESC LIMIT 1",
                               {name, stage, in_use}, [&](const Row& row) -> Status {
                                 seq = row.integer(0);
                                 version = row.text(1);
                                 return {};
                               }));
  if (!found) {
    return Error{ErrorCode::kNotFound, fmt::format("no version of package {} was {} before", name, stage),
                 "promote the version you want"};
  }
  TAILOR_CHECK(
      transaction.run("UPDATE promotions SET live = 0 WHERE name = ? AND stage = ? AND seq > ?", {name, stage, seq}));
  TAILOR_CHECK(transaction.run(
      "INSERT INTO promotions(name, stage, version, at, actor, action, live) VALUES (?, ?, ?, ?, ?, 'rollback', 0)",
      {name, stage, version, context_.clock(), actor}));
  TAILOR_CHECK(append_audit(transaction, context_.clock(),
                            {actor, "package.rollback", name + "@" + version, {{"stage", stage}}}));
  TAILOR_CHECK(transaction.commit());
  return version;
}

Result<std::optional<PackageRecord>> PackageStore::promoted(const std::string& name, std::string_view stage) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  TAILOR_TRY(const std::string version, version_in_use(transaction, name, stage));
  std::optional<PackageRecord> record;
  TAILOR_CHECK(transaction.first(fmt::format("{} WHERE name = ? AND version = ?", kSelect), {name, version},
                                 [&](const Row& row) -> Status {
                                   TAILOR_TRY(record, package_of(row, context_.directory));
                                   return {};
                                 }));
  return record;
}

Result<std::vector<Promotion>> PackageStore::history(const std::string& name, std::string_view stage) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  std::vector<Promotion> history;
  TAILOR_CHECK(transaction.each(
      "SELECT stage, version, at, actor, action, live FROM promotions WHERE name = ? AND stage = ? ORDER BY seq",
      {name, stage}, [&](const Row& row) -> Status {
        history.push_back({.stage = row.text(0),
                           .version = row.text(1),
                           .at = row.integer(2),
                           .actor = row.text(3),
                           .action = row.text(4),
                           .live = row.integer(5) != 0});
        return {};
      }));
  return history;
}

}  // namespace tailor
