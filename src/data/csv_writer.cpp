#include <algorithm>
#include <cctype>

#include "data/csv.h"

namespace tailor {
namespace {

bool plain_number(std::string_view cell) {
  return cell.size() > 1 && std::all_of(cell.begin() + 1, cell.end(),
                                        [](unsigned char c) { return std::isdigit(c) != 0 || c == '.' || c == ','; });
}

void append_cell(std::string& out, std::string_view cell, const CsvWriteOptions& options, bool alone) {
  constexpr std::string_view kFormulaStarts = "=+-@\t\r";
  const bool guarded = options.guard_formulas && !cell.empty() &&
                       kFormulaStarts.find(cell[0]) != std::string_view::npos &&
                       !((cell[0] == '-' || cell[0] == '+') && plain_number(cell));
  const bool quoted =
      (cell.empty() && alone) || cell.find_first_of("\"\r\n") != std::string_view::npos ||
      cell.find(options.delimiter) != std::string_view::npos ||
      (!cell.empty() && (cell.front() == ' ' || cell.back() == ' ' || cell.front() == '\t' || cell.back() == '\t'));
  if (quoted) out += '"';
  if (guarded) out += '\'';
  for (const char c : cell) {
    out += c;
    if (c == '"' && quoted) out += '"';
  }
  if (quoted) out += '"';
}

}  // namespace

void append_csv_row(std::string& out, std::span<const std::string_view> cells, const CsvWriteOptions& options) {
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (i > 0) out += options.delimiter;
    append_cell(out, cells[i], options, cells.size() == 1);
  }
  out += '\n';
}

void write_csv_row(std::ostream& out, std::span<const std::string_view> cells, const CsvWriteOptions& options) {
  std::string row;
  append_csv_row(row, cells, options);
  out.write(row.data(), static_cast<std::streamsize>(row.size()));
}

}  // namespace tailor
