#pragma once
/// How files and rows stay in step. Before a path below the store is made or removed, a row says so; the row that makes
/// the thing known is written in the transaction that takes this one away. What a killed process left is therefore
/// named, and nothing else is ever removed: a store whose database was replaced keeps its files.

#include <string_view>

#include "store/database.h"
#include "store/store_directory.h"

namespace tailor {

/// `path` is relative to the store. kUnavailable where another live session is at it; what a dead one left is removed.
Status declare_intent(Transaction& transaction, const StoreDirectory& directory, std::string_view path);
Status settle_intent(Transaction& transaction, std::string_view path);

/// Takes back what could not be made: the path, then its row. What cannot be taken back now is left to sweep().
void abandon_intent(Database& database, const StoreDirectory& directory, std::string_view path);

/// Removes the paths that dead sessions were making or removing, and their staging directories. Under
/// StoreDirectory::exclusive().
Status sweep(Database& database, const StoreDirectory& directory);

}  // namespace tailor
