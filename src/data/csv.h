#pragma once
/// Comma-separated files as businesses have them: RFC 4180, and what Excel, LibreOffice and exports do to it.
///
/// One pass over a memory map; a cell is a view into the map, or into an arena where doubled quotes had to be undone.
/// Accepted: a byte order mark, LF, CRLF and lone CR line ends, quoted line breaks, doubled quotes, Excel's first line
/// "sep=;", empty lines (skipped), spaces between a closing quote and the delimiter. Bytes must be UTF-8, UTF-16 or
/// UTF-32 with their mark, or of the encoding that is given. Everything else is an error with file and line.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

struct CsvOptions {
  char delimiter = 0;    // 0: the one of , ; tab | that splits the first records evenly
  std::string encoding;  // "": UTF-8, or by the byte order mark; else any name ICU knows, such as "windows-1252"
  std::size_t max_text_bytes = std::size_t{1} << 20;  // of one cell, in the file's UTF-8; longer is an error
};

/// Rows of equal width under named columns. Owns the bytes its cells point into; moving it keeps them valid.
/// Threads: const calls may run concurrently.
class CsvTable {
 public:
  /// Errors: file absent, unreadable, a directory, empty, header only; wrong encoding; NUL bytes; ragged row; open
  /// quote; text after a closing quote; cell above the limit; two columns of one name.
  static Result<CsvTable> read(const std::filesystem::path& file, const CsvOptions& options = {});
  /// The same for bytes in memory; `name` stands for the file in messages.
  static Result<CsvTable> parse(std::string bytes, std::string name, const CsvOptions& options = {});

  CsvTable(CsvTable&&) noexcept;
  CsvTable& operator=(CsvTable&&) noexcept;
  ~CsvTable();

  const std::string& file() const;                  // as given, for messages
  const std::vector<std::string>& columns() const;  // trimmed
  std::size_t rows() const;                         // without the header
  std::string_view cell(std::size_t row, std::size_t column) const;
  std::uint32_t line(std::size_t row) const;  // 1-based line of the file on which the row begins
  char delimiter() const;
  const std::string& encoding() const;  // "UTF-8", or what it was transcoded from

  /// Position of the column of that name. The error lists the columns there are and the nearest name.
  Result<std::size_t> column(std::string_view name) const;

  struct Impl;  // csv.cpp only; public for the parser there

 private:
  explicit CsvTable(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct CsvWriteOptions {
  char delimiter = ',';
  /// Puts ' before cells that begin with = + - @ tab or CR, which spreadsheet programs would run as formulas (OWASP
  /// "CSV injection"). Off where the file is read back by programs: the cells are changed. Plain numbers are left
  /// alone.
  bool guard_formulas = false;
};

/// Appends one record and "\n". Cells are quoted where they hold the delimiter, a quote, a line break, or spaces at an
/// end; a record of one empty cell is written as "" so that it is not an empty line.
void append_csv_row(std::string& out, std::span<const std::string_view> cells, const CsvWriteOptions& options = {});
void write_csv_row(std::ostream& out, std::span<const std::string_view> cells, const CsvWriteOptions& options = {});

}  // namespace tailor
