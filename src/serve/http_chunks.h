#pragma once
/// The chunked transfer encoding, decoded strictly (RFC 9112, section 7.1).

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tailor {

/// Bytes in any cut give the same pieces joined. Refused: sizes without or with more than 16 digits, white space around
/// a size, line ends other than CRLF, control characters, quoted extensions, extensions beyond 256 bytes a chunk or 4
/// KiB together, trailers beyond `trailer_bytes` or that are no fields. Extensions and trailers are checked and
/// dropped.
class ChunkDecoder {
 public:
  explicit ChunkDecoder(std::size_t trailer_bytes) : trailer_bytes_(trailer_bytes) {}

  enum class Event : std::uint8_t { kNeedMore, kPiece, kEnd, kFailed };
  struct Step {
    Event event;
    std::size_t consumed;    // bytes that need not be given again
    std::string_view piece;  // kPiece: body bytes, within those given
  };
  /// After kPiece call again with the rest; after kEnd and kFailed not again.
  Step put(std::string_view bytes);
  const char* flaw() const { return flaw_; }

 private:
  enum class State : std::uint8_t { kSize, kExtension, kSizeLf, kData, kDataCr, kDataLf, kTrailer, kTrailerLf, kEnd };
  bool take(char c);  // false: flaw_ says why
  bool take_size(char c);
  bool take_extension(char c);
  bool take_trailer(char c);
  bool fail(const char* why);

  State state_ = State::kSize;
  std::size_t trailer_bytes_;
  std::uint64_t size_ = 0;  // of the chunk, then what is left of it
  std::size_t digits_ = 0, extension_ = 0, extensions_ = 0, trailers_ = 0;
  bool in_word_ = false, in_value_ = false;  // of an extension
  std::string line_;                         // of a trailer
  const char* flaw_ = "";
};

/// Whether `line`, without its line end, is "name: value" with nothing that parsers read differently: no white space
/// before the colon or at the start, no control characters. `value` comes without the white space around it.
bool parse_field_line(std::string_view line, std::string_view* name, std::string_view* value);

bool is_token_char(char c);

}  // namespace tailor
