#pragma once
/// One text of several columns: "{subject}: {body}".

#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "data/csv.h"

namespace tailor {

/// Borrows the table.
class TextTemplate {
 public:
  /// With an empty `pattern` the columns are joined by line breaks. Errors name the columns of the table.
  static Result<TextTemplate> make(const std::vector<std::string>& columns, std::string_view pattern,
                                   const CsvTable& table);
  void render(std::size_t row, std::string& out) const;  // replaces `out`

 private:
  struct Piece {
    std::string literal;  // before the cell
    std::size_t column;   // kNoColumn: the literal alone
  };
  static constexpr std::size_t kNoColumn = static_cast<std::size_t>(-1);
  explicit TextTemplate(const CsvTable& table) : table_(&table) {}
  const CsvTable* table_;
  std::vector<Piece> pieces_;
};

}  // namespace tailor
