#include "data/text_template.h"

#include <fmt/format.h>

#include "text/unicode.h"

namespace tailor {

Result<TextTemplate> TextTemplate::make(const std::vector<std::string>& columns, std::string_view pattern,
                                        const CsvTable& table) {
  TextTemplate made(table);
  const std::string names = fmt::format("'{}'", fmt::join(table.columns(), "', '"));
  if (pattern.empty()) {
    if (columns.empty())
      return Error{ErrorCode::kInvalidArgument, "no text column was named",
                   fmt::format("name one or several of {} with --text", names)};
    for (const std::string& name : columns) {
      TAILOR_TRY(const std::size_t column, table.column(name));
      made.pieces_.push_back({made.pieces_.empty() ? "" : "\n", column});
    }
    return made;
  }

  const auto broken = [&](std::string_view what) {
    return Error{
        ErrorCode::kInvalidArgument, fmt::format("the text template \"{}\" {}", pattern, what),
        fmt::format("a column stands in braces, such as {{{}}}; the columns are {}; {{{{ and }}}} write braces",
                    table.columns().front(), names)};
  };
  std::string literal;
  bool any = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if ((c == '{' || c == '}') && i + 1 < pattern.size() && pattern[i + 1] == c) {
      literal += c;
      ++i;
    } else if (c == '}') {
      return broken("has a } without its {");
    } else if (c == '{') {
      const std::size_t close = pattern.find('}', i);
      if (close == std::string_view::npos) return broken("has a { that is not closed");
      const std::string_view name = trim(pattern.substr(i + 1, close - i - 1));
      auto column = table.column(name);
      if (!column)
        return Error{column.error().code, fmt::format("text template \"{}\": {}", pattern, column.error().message),
                     column.error().hint};
      made.pieces_.push_back({std::move(literal), *column});
      literal.clear();
      any = true;
      i = close;
    } else {
      literal += c;
    }
  }
  if (!any) return broken("names no column");
  if (!literal.empty()) made.pieces_.push_back({std::move(literal), kNoColumn});
  return made;
}

void TextTemplate::render(std::size_t row, std::string& out) const {
  out.clear();
  bool blank = true;
  for (const Piece& piece : pieces_) {
    out += piece.literal;
    if (piece.column == kNoColumn) continue;
    const std::string_view cell = table_->cell(row, piece.column);
    blank = blank && is_blank(cell);
    out += cell;
  }
  if (blank) out.clear();  // "subject: body: " around nothing is no text
}

}  // namespace tailor
