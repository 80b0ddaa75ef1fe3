#include "store/paging.h"

#include <limits>

namespace tailor {

Result<PageStatement> page_statement(Transaction& transaction, const PageSource& source, const PageQuery& query) {
  if (query.limit < 1)
    return Error{ErrorCode::kInvalidArgument, fmt::format("limit is {}; at least 1 is expected", query.limit), ""};
  // Plain equations, which an index can answer; ?2 and ?3 are always there, so that numbers mean the same everywhere.
  const std::string restriction = fmt::format("{} = ?2 AND {} = ?3", source.value.empty() ? "?2" : source.filter,
                                              query.owner.empty() || !source.owned ? "?3" : "owner");
  PageStatement statement;
  statement.limit = std::min(query.limit, source.most);
  statement.position = query.newest_first ? std::numeric_limits<std::int64_t>::max() : 0;
  if (!query.after.empty()) {
    TAILOR_TRY(
        const bool found,
        transaction.first(fmt::format("SELECT seq FROM {} WHERE {} = ?1 AND {}", source.table, source.key, restriction),
                          {query.after, source.value, query.owner}, [&](const Row& row) -> Status {
                            statement.position = row.integer(0);
                            return {};
                          }));
    if (!found)
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("\"after\" names {}, which is not in the list", query.after),
                   "give the id of the last element of the page before"};
  }
  statement.sql = fmt::format("{} WHERE seq {} ?1 AND {} ORDER BY seq {} LIMIT ?4", source.select,
                              query.newest_first ? "<" : ">", restriction, query.newest_first ? "DESC" : "ASC");
  return statement;
}

}  // namespace tailor
