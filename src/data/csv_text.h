#pragma once
/// The bytes of a CSV file made ready for parsing (UTF-8, no byte order mark, no NUL), and its delimiter. Part of
/// csv.h.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/files.h"
#include "core/result.h"

namespace tailor {

/// Owns a memory map or a transcoded copy; view() stays valid when it is moved.
class CsvText {
 public:
  CsvText() = default;
  /// Regular files are mapped; pipes are read. `encoding` as in CsvOptions.
  static Result<CsvText> open(const std::filesystem::path& file, const std::string& encoding);
  static Result<CsvText> from_bytes(std::string bytes, std::string_view name, const std::string& encoding);
  std::string_view view() const { return view_; }
  const std::string& encoding() const { return encoding_; }

 private:
  Status prepare(std::string_view bytes, std::string_view name, const std::string& encoding);
  std::optional<MappedFile> map_;
  std::unique_ptr<std::string> copy_;
  std::string_view view_;
  std::string encoding_ = "UTF-8";
};

/// The delimiter among , ; tab | by which the header has the most columns and the records of the first 64 KiB most
/// often as many as the header; ',' where no candidate splits the header. Quoted text is skipped. A first line "sep=X"
/// decides.
char sniff_delimiter(std::string_view text);

/// Bytes of Excel's first line "sep=X" with its line end; 0 where there is none.
std::size_t separator_line_length(std::string_view text);

std::string_view delimiter_name(char delimiter);  // "a comma", "a semicolon", ...

}  // namespace tailor
