#include "store/intents.h"

#include <fmt/format.h>

#include <string>
#include <tuple>
#include <vector>

#include "core/files.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

/// A damaged or forged row must not lead out of the two directories that hold what we made.
bool removable(const fs::path& path) {
  for (const fs::path& part : path) {
    if (part == ".." || part == ".") return false;
  }
  const auto parts = std::distance(path.begin(), path.end());
  return path.is_relative() &&
         ((parts == 2 && *path.begin() == "files") || (parts == 3 && *path.begin() == "packages"));
}

Status remove_leftover(const StoreDirectory& directory, const std::string& path) {
  if (!removable(path))
    return Error{ErrorCode::kCorruptData, fmt::format("the store's list of unfinished paths names {}", path), ""};
  return remove_tree(directory.root() / path);
}

}  // namespace

Status declare_intent(Transaction& transaction, const StoreDirectory& directory, std::string_view path) {
  std::string session;
  TAILOR_TRY(const bool taken,
             transaction.first("SELECT session FROM intents WHERE path = ?", {path}, [&](const Row& row) -> Status {
               session = row.text(0);
               return {};
             }));
  if (taken && directory.session_alive(session)) {
    return Error{ErrorCode::kUnavailable, fmt::format("{} is being written or removed right now", path),
                 "try again when that is done"};
  }
  if (taken) TAILOR_CHECK(remove_leftover(directory, std::string(path)));
  TAILOR_CHECK(transaction.run("INSERT OR REPLACE INTO intents VALUES (?, ?)", {path, directory.session()}));
  return {};
}

Status settle_intent(Transaction& transaction, std::string_view path) {
  TAILOR_CHECK(transaction.run("DELETE FROM intents WHERE path = ?", {path}));
  return {};
}

void abandon_intent(Database& database, const StoreDirectory& directory, std::string_view path) {
  const auto in_transaction = [&](std::string_view sql) -> Status {
    TAILOR_TRY(Transaction transaction, database.write());
    TAILOR_CHECK(transaction.run(sql, {path}));
    return transaction.commit();
  };
  // A commit that failed while it was flushed may stand whole in the log and come to life after a crash, unless another
  // one was written over it. Only then may the files go.
  if (!in_transaction("UPDATE intents SET session = session WHERE path = ?")) return;
  if (!remove_leftover(directory, std::string(path))) return;
  std::ignore = in_transaction("DELETE FROM intents WHERE path = ?");
}

Status sweep(Database& database, const StoreDirectory& directory) {
  TAILOR_TRY(Transaction transaction, database.write());
  std::vector<std::string> left;
  TAILOR_CHECK(transaction.each("SELECT path, session FROM intents", {}, [&](const Row& row) -> Status {
    if (!directory.session_alive(row.text(1))) left.push_back(row.text(0));
    return {};
  }));
  for (const std::string& path : left) {
    TAILOR_CHECK(remove_leftover(directory, path));
    TAILOR_CHECK(settle_intent(transaction, path));
  }
  TAILOR_CHECK(transaction.commit());
  return directory.remove_dead_sessions();
}

}  // namespace tailor
