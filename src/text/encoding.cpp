#include "text/encoding.h"

#include <fmt/format.h>
#include <unicode/ucnv.h>
#include <unicode/unistr.h>

#include <array>
#include <memory>

namespace tailor {

using std::string_view_literals::operator""sv;

ByteOrderMark find_byte_order_mark(std::string_view bytes) {
  if (bytes.starts_with("\xEF\xBB\xBF"sv)) return {"UTF-8", 3};
  if (bytes.starts_with("\xFF\xFE\0\0"sv)) return {"UTF-32LE", 4};  // before UTF-16LE, whose mark is its beginning
  if (bytes.starts_with("\0\0\xFE\xFF"sv)) return {"UTF-32BE", 4};
  if (bytes.starts_with("\xFF\xFE"sv)) return {"UTF-16LE", 2};
  if (bytes.starts_with("\xFE\xFF"sv)) return {"UTF-16BE", 2};
  return {};
}

Result<std::string> to_utf8(std::string_view bytes, const std::string& encoding, std::string_view where) {
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<UConverter, decltype(&ucnv_close)> converter(ucnv_open(encoding.c_str(), &status), &ucnv_close);
  if (U_FAILURE(status)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: '{}' is no encoding that ICU knows", where, encoding),
                 "common ones are utf-8, utf-16, windows-1252, iso-8859-15, shift_jis, gb18030"};
  }
  ucnv_setToUCallBack(converter.get(), UCNV_TO_U_CALLBACK_STOP, nullptr, nullptr, nullptr, &status);

  std::string out;
  out.reserve(bytes.size());
  icu::StringByteSink<std::string> sink(&out);
  constexpr std::size_t kBlock = std::size_t{1} << 15;
  std::array<UChar, kBlock + 1> block{};
  std::size_t carried = 0;  // 1 where the last block ended between two surrogates
  const char* source = bytes.data();
  const char* const source_end = source + bytes.size();
  while (true) {
    UChar* target = block.data() + carried;
    status = U_ZERO_ERROR;
    ucnv_toUnicode(converter.get(), &target, block.data() + block.size(), &source, source_end, nullptr, true, &status);
    if (U_FAILURE(status) && status != U_BUFFER_OVERFLOW_ERROR) {
      char invalid[16];
      std::int8_t length = sizeof invalid;
      UErrorCode ignored = U_ZERO_ERROR;
      ucnv_getInvalidChars(converter.get(), invalid, &length, &ignored);
      const auto offset = static_cast<std::size_t>(source - bytes.data()) - static_cast<std::size_t>(length);
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: byte {} does not follow the encoding {}", where, offset + 1, encoding),
                   "give the encoding the file was saved in with --encoding, or save it as UTF-8"};
    }
    auto filled = static_cast<std::size_t>(target - block.data());
    carried = filled > 0 && status == U_BUFFER_OVERFLOW_ERROR && U16_IS_LEAD(block[filled - 1]) ? 1 : 0;
    filled -= carried;
    icu::UnicodeString(false, block.data(), static_cast<std::int32_t>(filled)).toUTF8(sink);
    if (status != U_BUFFER_OVERFLOW_ERROR) return out;
    if (carried == 1) block[0] = block[filled];
  }
}

}  // namespace tailor
