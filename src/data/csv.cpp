#include "data/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "core/files.h"
#include "data/csv_text.h"
#include "text/edit_distance.h"
#include "text/unicode.h"

namespace tailor {
namespace fs = std::filesystem;

struct CsvTable::Impl {
  std::string file;
  CsvText text;
  std::vector<std::unique_ptr<char[]>> arena;  // one block per cell that had doubled quotes; they are rare
  std::vector<std::string> columns;
  std::vector<std::string_view> cells;  // rows * columns
  std::vector<std::uint32_t> lines;
  char delimiter = ',';

  Error error(ErrorCode code, std::uint64_t line, const std::string& what, std::string hint = "") const {
    return {code, fmt::format("{}:{}: {}", file, line, what), std::move(hint)};
  }
};

namespace {

constexpr std::string_view kQuoteHint =
    "a quote inside a quoted text is written twice (\"\"), and a text that holds line breaks stands in quotes";

constexpr std::size_t kMostTextBytes = std::size_t{1} << 30;  // ICU counts a text's bytes in 32 bits

/// Walks through the records; hands each to `row(line, cells)`. One object a file.
class Parser {
 public:
  Parser(CsvTable::Impl& table, std::size_t max_text_bytes)
      : table_(table), text_(table.text.view()), max_(std::min(max_text_bytes, kMostTextBytes)) {
    stops_.fill(false);
    for (const char c : {'\n', '\r', table.delimiter}) stops_[static_cast<unsigned char>(c)] = true;
  }

  Status run() {
    skip_separator_line();
    TAILOR_CHECK(read_header());
    while (skip_empty_lines()) TAILOR_CHECK(read_row());
    if (table_.lines.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} holds a header ({}) and no rows", table_.file, column_list()),
                   "the first line names the columns, the rows follow"};
    }
    return {};
  }

 private:
  std::string column_list() const {
    std::vector<std::string> quoted;
    for (const std::string& name : table_.columns) quoted.push_back("'" + name + "'");
    return fmt::format("{}", fmt::join(quoted, ", "));
  }

  /// Excel's own mark of the delimiter; the sniffer has read it already.
  void skip_separator_line() {
    const std::size_t length = separator_line_length(text_);
    if (length == 0) return;
    pos_ = length;
    ++line_;
  }

  bool end_of_line() {  // consumes one line end, if there is one here
    if (pos_ >= text_.size()) return false;
    if (text_[pos_] == '\n')
      ++pos_;
    else if (text_[pos_] == '\r')
      pos_ += pos_ + 1 < text_.size() && text_[pos_ + 1] == '\n' ? 2 : 1;
    else
      return false;
    ++line_;
    return true;
  }
  bool skip_empty_lines() {
    while (end_of_line()) {
    }
    return pos_ < text_.size();
  }

  Error open_quote(std::uint64_t opened) const {
    return table_.error(ErrorCode::kCorruptData, opened,
                        "a quote is opened here and never closed before the end of the file", std::string(kQuoteHint));
  }
  Error too_long(std::uint64_t line, std::size_t column) const {
    const std::string name =
        column < table_.columns.size() ? fmt::format("column '{}'", table_.columns[column]) : "a cell";
    return table_.error(
        ErrorCode::kInvalidArgument, line, fmt::format("{} holds a text of more than {} bytes", name, max_),
        fmt::format("raise --max-text-bytes if it is meant, or look for a quote that is not closed on line {}", line));
  }

  void count_lines(std::string_view quoted) {
    for (std::size_t i = 0; i < quoted.size(); ++i) {
      if (quoted[i] == '\n' || (quoted[i] == '\r' && (i + 1 == quoted.size() || quoted[i + 1] != '\n'))) ++line_;
    }
  }

  Result<std::string_view> quoted_cell(std::size_t column) {
    const std::uint64_t opened = line_;
    const std::size_t begin = ++pos_;
    bool doubled = false;
    while (true) {
      const std::size_t quote = text_.find('"', pos_);
      if (quote == std::string_view::npos) return open_quote(opened);
      if (quote - begin > max_) return too_long(opened, column);
      pos_ = quote + 1;
      if (pos_ >= text_.size() || text_[pos_] != '"') break;
      doubled = true;
      ++pos_;
    }
    const std::string_view raw = text_.substr(begin, pos_ - 1 - begin);
    count_lines(raw);
    while (pos_ < text_.size() && (text_[pos_] == ' ' || text_[pos_] == '\t') &&
           !stops_[static_cast<unsigned char>(text_[pos_])])
      ++pos_;
    if (pos_ < text_.size() && !stops_[static_cast<unsigned char>(text_[pos_])]) {
      return table_.error(
          ErrorCode::kCorruptData, line_,
          fmt::format("expected {} or the end of the line after the closing quote of field {}, saw '{}'{}",
                      delimiter_name(table_.delimiter), column + 1, shorten(text_.substr(pos_, 64), 12),
                      opened == line_ ? "" : fmt::format("; the quote was opened on line {}", opened)),
          std::string(kQuoteHint));
    }
    return doubled ? undouble(raw) : raw;
  }

  std::string_view undouble(std::string_view raw) {
    table_.arena.push_back(std::make_unique<char[]>(raw.size()));
    char* const out = table_.arena.back().get();
    std::size_t length = 0;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      out[length++] = raw[i];
      if (raw[i] == '"') ++i;
    }
    return {out, length};
  }

  Result<std::string_view> plain_cell(std::size_t column) {
    const std::size_t begin = pos_;
    while (pos_ < text_.size() && !stops_[static_cast<unsigned char>(text_[pos_])]) ++pos_;
    if (pos_ - begin > max_) return too_long(line_, column);
    return text_.substr(begin, pos_ - begin);
  }

  /// Appends the record's cells to `cells` and returns how many they are.
  Result<std::size_t> read_record(std::vector<std::string_view>& cells) {
    std::size_t count = 0;
    while (true) {
      const bool quoted = pos_ < text_.size() && text_[pos_] == '"';
      TAILOR_TRY(const std::string_view cell, quoted ? quoted_cell(count) : plain_cell(count));
      cells.push_back(cell);
      ++count;
      if (pos_ < text_.size() && text_[pos_] == table_.delimiter) {
        ++pos_;
        continue;
      }
      end_of_line();
      return count;
    }
  }

  Status read_header() {
    if (!skip_empty_lines()) {
      return Error{ErrorCode::kInvalidArgument, table_.file + " is empty",
                   "expected a first line with column names, then one row a line"};
    }
    const std::uint64_t line = line_;
    std::vector<std::string_view> names;
    TAILOR_TRY(const std::size_t count, read_record(names));
    for (const std::string_view name : names) {
      const std::string trimmed(trim(name));
      const auto same = std::find(table_.columns.begin(), table_.columns.end(), trimmed);
      if (!trimmed.empty() && same != table_.columns.end()) {
        return table_.error(ErrorCode::kInvalidArgument, line,
                            fmt::format("two columns are called '{}' (fields {} and {})", trimmed,
                                        same - table_.columns.begin() + 1, table_.columns.size() + 1),
                            "give every column a name of its own");
      }
      table_.columns.push_back(trimmed);
    }
    const auto rows = static_cast<std::size_t>(
        std::count(text_.begin(), text_.end(), '\n'));  // at most; pages never touched cost nothing
    table_.cells.reserve((rows + 1) * count);
    table_.lines.reserve(rows + 1);
    return {};
  }

  Status read_row() {
    const std::uint64_t line = line_;
    if (line > std::numeric_limits<std::uint32_t>::max()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{} has more than 4,294,967,295 lines", table_.file),
                   "split the file"};
    }
    TAILOR_TRY(const std::size_t count, read_record(table_.cells));
    if (count != table_.columns.size()) {
      return table_.error(ErrorCode::kCorruptData, line,
                          fmt::format("expected {} field{} as in the header, saw {}", table_.columns.size(),
                                      table_.columns.size() == 1 ? "" : "s", count),
                          count > table_.columns.size()
                              ? fmt::format("a text that holds {} must stand in double quotes; fields are read as "
                                            "separated by {} (--delimiter)",
                                            delimiter_name(table_.delimiter), delimiter_name(table_.delimiter))
                              : fmt::format("fields are read as separated by {} (--delimiter); a text with line breaks "
                                            "must stand in double quotes",
                                            delimiter_name(table_.delimiter)));
    }
    table_.lines.push_back(static_cast<std::uint32_t>(line));
    return {};
  }

  CsvTable::Impl& table_;
  std::string_view text_;
  std::size_t max_;
  std::size_t pos_ = 0;
  std::uint64_t line_ = 1;
  std::array<bool, 256> stops_{};
};

Status parse_into(CsvTable::Impl& table, const CsvOptions& options) {
  table.delimiter = options.delimiter != 0 ? options.delimiter : sniff_delimiter(table.text.view());
  return Parser(table, options.max_text_bytes).run();
}

}  // namespace

CsvTable::CsvTable(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CsvTable::CsvTable(CsvTable&&) noexcept = default;
CsvTable& CsvTable::operator=(CsvTable&&) noexcept = default;
CsvTable::~CsvTable() = default;

Result<CsvTable> CsvTable::read(const fs::path& file, const CsvOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->file = file.string();
  TAILOR_TRY(impl->text, CsvText::open(file, options.encoding));
  TAILOR_CHECK(parse_into(*impl, options));
  return CsvTable(std::move(impl));
}

Result<CsvTable> CsvTable::parse(std::string bytes, std::string name, const CsvOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->file = std::move(name);
  TAILOR_TRY(impl->text, CsvText::from_bytes(std::move(bytes), impl->file, options.encoding));
  TAILOR_CHECK(parse_into(*impl, options));
  return CsvTable(std::move(impl));
}

const std::string& CsvTable::file() const {
  return impl_->file;
}
const std::vector<std::string>& CsvTable::columns() const {
  return impl_->columns;
}
std::size_t CsvTable::rows() const {
  return impl_->lines.size();
}
std::string_view CsvTable::cell(std::size_t row, std::size_t column) const {
  return impl_->cells[row * impl_->columns.size() + column];
}
std::uint32_t CsvTable::line(std::size_t row) const {
  return impl_->lines[row];
}
char CsvTable::delimiter() const {
  return impl_->delimiter;
}
const std::string& CsvTable::encoding() const {
  return impl_->text.encoding();
}

Result<std::size_t> CsvTable::column(std::string_view name) const {
  const auto& columns = impl_->columns;
  const auto found = std::find(columns.begin(), columns.end(), name);
  if (found != columns.end()) return static_cast<std::size_t>(found - columns.begin());
  std::vector<std::string> quoted;
  for (const std::string& column : columns) quoted.push_back("'" + column + "'");
  std::string hint;
  if (const std::string nearest = nearest_name(name, columns); !nearest.empty())
    hint = fmt::format("did you mean '{}'?", nearest);
  else if (columns.size() == 1) {
    hint = fmt::format("the line was read as one column, separated by {}; give --delimiter if it is another",
                       delimiter_name(impl_->delimiter));
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: there is no column '{}'; the column{} {}", impl_->file, name,
                           columns.size() == 1 ? " is" : "s are", fmt::join(quoted, ", ")),
               hint};
}

}  // namespace tailor
