#include "data/csv_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "text/encoding.h"
#include "text/unicode.h"

namespace tailor {
namespace {

/// 1-based line of the byte at `offset`, counted as the parser counts.
std::size_t line_of(std::string_view bytes, std::size_t offset) {
  std::size_t line = 1;
  for (std::size_t i = 0; i < offset; ++i) {
    if (bytes[i] == '\n' || (bytes[i] == '\r' && (i + 1 == bytes.size() || bytes[i + 1] != '\n'))) ++line;
  }
  return line;
}

bool is_utf8_name(std::string encoding) {
  std::erase_if(encoding, [](char c) { return c == '-' || c == '_'; });
  std::transform(encoding.begin(), encoding.end(), encoding.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return encoding == "utf8";
}

/// UTF-16 without its mark: every other byte of mostly Latin text is NUL.
std::string guess_wide_encoding(std::string_view bytes) {
  std::size_t zeros[2] = {0, 0};
  const std::size_t sample = std::min<std::size_t>(bytes.size(), 4096);
  for (std::size_t i = 0; i < sample; ++i) zeros[i % 2] += bytes[i] == '\0';
  if (zeros[1] > sample / 4 && zeros[0] <= sample / 16) return "utf-16le";
  if (zeros[0] > sample / 4 && zeros[1] <= sample / 16) return "utf-16be";
  return "";
}

}  // namespace

Status CsvText::prepare(std::string_view bytes, std::string_view name, const std::string& encoding) {
  const ByteOrderMark mark = find_byte_order_mark(bytes);
  // A mark is proof; a name given against it would only make garbage.
  encoding_ = !mark.encoding.empty()                       ? std::string(mark.encoding)
              : is_utf8_name(encoding) || encoding.empty() ? "UTF-8"
                                                           : encoding;
  if (encoding_ != "UTF-8") {
    TAILOR_TRY(std::string transcoded, to_utf8(bytes.substr(mark.mark_bytes), encoding_, name));
    copy_ = std::make_unique<std::string>(std::move(transcoded));
    map_.reset();
    view_ = *copy_;
  } else {
    view_ = bytes.substr(mark.mark_bytes);
    const std::size_t invalid = find_invalid_utf8(view_);
    if (invalid != std::string_view::npos) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}:{}: byte {} of the file (0x{:02X}) is not UTF-8", name, line_of(view_, invalid),
                               invalid + mark.mark_bytes + 1, static_cast<unsigned char>(view_[invalid])),
                   "if the file was saved by Excel or another Windows program, add --encoding windows-1252; or save it "
                   "as UTF-8"};
    }
  }
  const std::size_t zero = view_.find('\0');
  if (zero != std::string_view::npos) {
    const std::string wide = guess_wide_encoding(bytes);
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}:{}: byte {} is NUL, which no text file holds", name, line_of(view_, zero), zero + 1),
                 wide.empty() ? "the file may be damaged or no text file"
                              : fmt::format("the file looks like UTF-16: add --encoding {}", wide)};
  }
  return {};
}

Result<CsvText> CsvText::open(const std::filesystem::path& file, const std::string& encoding) {
  std::error_code ignored;
  CsvText text;
  if (std::filesystem::exists(file, ignored) && !std::filesystem::is_regular_file(file, ignored) &&
      !std::filesystem::is_directory(file, ignored)) {
    TAILOR_TRY(std::string bytes, read_file(file));  // a pipe has no size to map
    return from_bytes(std::move(bytes), file.string(), encoding);
  }
  TAILOR_TRY(MappedFile map, MappedFile::open(file));
  text.map_.emplace(std::move(map));
  TAILOR_CHECK(text.prepare(text.map_->bytes(), file.string(), encoding));
  return text;
}

Result<CsvText> CsvText::from_bytes(std::string bytes, std::string_view name, const std::string& encoding) {
  CsvText text;
  text.copy_ = std::make_unique<std::string>(std::move(bytes));
  const std::unique_ptr<std::string> original = std::move(text.copy_);  // prepare() may put a transcoded copy there
  TAILOR_CHECK(text.prepare(*original, name, encoding));
  if (!text.copy_) {
    const std::size_t offset = static_cast<std::size_t>(text.view_.data() - original->data());
    text.copy_ = std::make_unique<std::string>(std::move(*original));
    text.view_ = std::string_view(*text.copy_).substr(offset);
  }
  return text;
}

std::size_t separator_line_length(std::string_view text) {
  if (text.size() < 5 || !(text.starts_with("sep=") || text.starts_with("SEP="))) return 0;
  if (text.size() == 5) return 5;
  if (text[5] == '\n') return 6;
  if (text[5] == '\r') return text.size() > 6 && text[6] == '\n' ? 7 : 6;
  return 0;
}

char sniff_delimiter(std::string_view text) {
  const std::size_t separator_line = separator_line_length(text);
  if (separator_line > 0) return text[4];
  constexpr std::size_t kSample = std::size_t{1} << 16;
  constexpr std::size_t kRecords = 500;
  const std::string_view sample = text.substr(0, kSample);
  char best = ',';
  double best_share = -1;
  std::size_t best_fields = 1;
  for (const char candidate : {',', ';', '\t', '|'}) {
    std::vector<std::size_t> fields;  // per record
    std::size_t count = 1;
    bool quoted = false;
    bool field_start = true;
    bool record_start = true;
    for (std::size_t i = 0; i < sample.size() && fields.size() < kRecords; ++i) {
      const char c = sample[i];
      if (quoted) {
        if (c == '"') {
          if (i + 1 < sample.size() && sample[i + 1] == '"')
            ++i;
          else
            quoted = false;
        }
        continue;
      }
      if (c == '\n' || c == '\r') {
        if (!record_start) fields.push_back(count);
        count = 1;
        field_start = record_start = true;
        continue;
      }
      if (c == '"' && field_start) quoted = true;
      field_start = c == candidate;
      count += c == candidate;
      record_start = false;
    }
    if (!record_start && !quoted && sample.size() == text.size() && fields.size() < kRecords) fields.push_back(count);
    if (fields.empty() || fields[0] < 2) continue;
    const auto same = static_cast<double>(std::count(fields.begin(), fields.end(), fields[0]));
    const double share = same / static_cast<double>(fields.size());
    if (share > best_share || (share == best_share && fields[0] > best_fields)) {
      best = candidate;
      best_share = share;
      best_fields = fields[0];
    }
  }
  return best;
}

std::string_view delimiter_name(char delimiter) {
  switch (delimiter) {
    case ',':
      return "a comma";
    case ';':
      return "a semicolon";
    case '\t':
      return "a tab";
    case '|':
      return "a bar (|)";
    default:
      return "the given delimiter";
  }
}

}  // namespace tailor
