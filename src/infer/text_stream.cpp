#include "infer/text_stream.h"

#include <algorithm>

namespace tailor {

std::size_t unfinished_bytes(std::string_view text) {
  for (std::size_t n = 1; n <= std::min<std::size_t>(3, text.size()); ++n) {
    const auto byte = static_cast<unsigned char>(text[text.size() - n]);
    if ((byte & 0xC0u) == 0x80u) continue;  // a later byte of a character
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > n ? n : 0;
  }
  return 0;
}

bool TextStream::add(std::string_view bytes) {
  const std::size_t old = text_.size();
  text_ += bytes;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    const std::size_t at = text_.find(stop, old >= stop.size() ? old - stop.size() + 1 : 0);
    if (at < first) {
      first = at;
      stop_ = stop;
    }
  }
  if (first != std::string::npos) {
    text_.resize(first + (keep_stop_ ? stop_.size() : 0));
    free_ = text_.size();
    return false;
  }
  std::size_t held = unfinished_bytes(text_);
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size(), text_.size()); n > held; --n) {
      if (std::string_view(text_).substr(text_.size() - n) == std::string_view(stop).substr(0, n)) held = n;
    }
  }
  free_ = std::max(free_, text_.size() - held);
  return true;
}

void TextStream::finish() {
  text_.resize(std::max(free_, text_.size() - unfinished_bytes(text_)));  // half a character is nothing
  free_ = text_.size();
}

std::string TextStream::take() {
  std::string out = text_.substr(sent_, free_ - sent_);
  sent_ = free_;
  return out;
}

}  // namespace tailor
