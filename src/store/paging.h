#pragma once
/// Reading a page of a table; for the store's own sources.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "store/database.h"
#include "store/page.h"

namespace tailor {

/// All parts but `value` are SQL of ours.
struct PageSource {
  std::string_view select;  // "SELECT seq, … FROM table"
  std::string_view table;
  std::string_view filter;  // a column that must have `value`, where that is not empty
  std::string_view value;
  std::int64_t most = 100;  // rows a page
  bool owned = true;        // has a column owner
  std::string_view key = "id";
};

struct PageStatement {
  std::string sql;
  std::int64_t position = 0;  // of query.after
  std::int64_t limit = 0;
};

/// kInvalidArgument where query.after is unknown (or another owner's) or query.limit is below 1.
Result<PageStatement> page_statement(Transaction& transaction, const PageSource& source, const PageQuery& query);

template <typename T, typename FromRow>
Result<Page<T>> read_page(Transaction& transaction, const PageSource& source, const PageQuery& query,
                          FromRow&& from_row) {
  TAILOR_TRY(const PageStatement statement, page_statement(transaction, source, query));
  Page<T> page;
  // One row more than asked for tells whether there are more.
  TAILOR_CHECK(transaction.each(statement.sql, {statement.position, source.value, query.owner, statement.limit + 1},
                                [&](const Row& row) -> Status {
                                  page.has_more = static_cast<std::int64_t>(page.data.size()) == statement.limit;
                                  if (page.has_more) return {};
                                  TAILOR_TRY(T element, from_row(row));
                                  page.data.push_back(std::move(element));
                                  return {};
                                }));
  return page;
}

}  // namespace tailor
