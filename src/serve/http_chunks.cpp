#include "serve/http_chunks.h"

#include <algorithm>

namespace tailor {
namespace {

constexpr std::size_t kMaxExtension = 256, kMaxExtensions = 4096;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_control(char c) {
  return (static_cast<unsigned char>(c) < 32 && c != '\t') || c == 127;
}

}  // namespace

bool is_token_char(char c) {
  if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
  return c != 0 && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool parse_field_line(std::string_view line, std::string_view* name, std::string_view* value) {
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  *name = line.substr(0, colon);
  if (!std::all_of(name->begin(), name->end(), is_token_char)) return false;
  std::string_view rest = line.substr(colon + 1);
  if (std::any_of(rest.begin(), rest.end(), is_control)) return false;
  while (!rest.empty() && (rest.front() == ' ' || rest.front() == '\t')) rest.remove_prefix(1);
  while (!rest.empty() && (rest.back() == ' ' || rest.back() == '\t')) rest.remove_suffix(1);
  *value = rest;
  return true;
}

bool ChunkDecoder::fail(const char* why) {
  flaw_ = why;
  return false;
}

bool ChunkDecoder::take_size(char c) {
  if (const int digit = hex_digit(c); digit >= 0) {
    if (++digits_ > 16) return fail("a chunk size has more than 16 digits");
    size_ = size_ * 16 + static_cast<std::uint64_t>(digit);
    return true;
  }
  if (digits_ == 0) return fail("a chunk has no size");
  if (c == '\r') {
    state_ = State::kSizeLf;
  } else if (c == ';') {
    state_ = State::kExtension;
    extension_ = 0;
    in_word_ = in_value_ = false;
  } else {
    return fail("a chunk size is not followed by a line end");
  }
  return true;
}

/// *( ";" name [ "=" value ] ), of which the first ";" is there. Quoted values, which nobody sends, are refused:
/// whether a CRLF may stand in them is what parsers disagree about.
bool ChunkDecoder::take_extension(char c) {
  if (++extension_ > kMaxExtension || ++extensions_ > kMaxExtensions) return fail("a chunk extension is too long");
  if (is_token_char(c)) {
    in_word_ = true;
    return true;
  }
  if (!in_word_ || (c == '=' && in_value_)) return fail("a chunk extension is not \"name=value\"");
  in_word_ = false;
  in_value_ = c == '=';
  if (c == '\r') {
    state_ = State::kSizeLf;
    return true;
  }
  return c == '=' || c == ';' || fail("a chunk extension is not \"name=value\"");
}

bool ChunkDecoder::take_trailer(char c) {
  if (++trailers_ > trailer_bytes_) return fail("the trailers are too long");
  if (state_ == State::kTrailer) {
    if (c == '\r') {
      state_ = State::kTrailerLf;
      return true;
    }
    if (is_control(c)) return fail("a trailer has a control character");
    line_ += c;
    return true;
  }
  if (c != '\n') return fail("a trailer does not end with CRLF");
  state_ = State::kTrailer;
  if (line_.empty()) {
    state_ = State::kEnd;
    return true;
  }
  std::string_view name, value;
  if (!parse_field_line(line_, &name, &value)) return fail("a trailer is no field");
  line_.clear();
  return true;
}

bool ChunkDecoder::take(char c) {
  switch (state_) {
    case State::kSize:
      return take_size(c);
    case State::kExtension:
      return take_extension(c);
    case State::kSizeLf:
      if (c != '\n') return fail("a chunk size does not end with CRLF");
      state_ = size_ > 0 ? State::kData : State::kTrailer;
      return true;
    case State::kDataCr:
      if (c != '\r') return fail("a chunk is longer than its size");
      state_ = State::kDataLf;
      return true;
    case State::kDataLf:
      if (c != '\n') return fail("a chunk does not end with CRLF");
      state_ = State::kSize;
      digits_ = 0;
      return true;
    case State::kTrailer:
    case State::kTrailerLf:
      return take_trailer(c);
    case State::kData:
    case State::kEnd:
      break;
  }
  return true;
}

ChunkDecoder::Step ChunkDecoder::put(std::string_view bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (state_ == State::kData) {
      const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(size_, bytes.size() - i));
      size_ -= n;
      if (size_ == 0) state_ = State::kDataCr;
      return {Event::kPiece, i + n, bytes.substr(i, n)};
    }
    if (!take(bytes[i])) return {Event::kFailed, i, {}};
    if (state_ == State::kEnd) return {Event::kEnd, i + 1, {}};
  }
  return {Event::kNeedMore, bytes.size(), {}};
}

}  // namespace tailor
