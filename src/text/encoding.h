#pragma once
/// Other encodings than UTF-8, through ICU's converters.

#include <string>
#include <string_view>

#include "core/result.h"

namespace tailor {

/// "UTF-16LE", "UTF-16BE", "UTF-32LE" or "UTF-32BE" where the bytes begin with that byte order mark, "UTF-8" for its
/// mark, "" where there is none. `mark_bytes` is the length of the mark.
struct ByteOrderMark {
  std::string_view encoding;
  std::size_t mark_bytes = 0;
};
ByteOrderMark find_byte_order_mark(std::string_view bytes);

/// Transcodes to UTF-8. `encoding` is any name ICU knows ("windows-1252", "latin1", "shift_jis", ...). Bytes that are
/// not of that encoding are an error with their offset, never a replacement character. `where` names the file.
Result<std::string> to_utf8(std::string_view bytes, const std::string& encoding, std::string_view where);

}  // namespace tailor
