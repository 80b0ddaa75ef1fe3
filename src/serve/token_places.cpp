#include "serve/token_places.h"

#include <algorithm>

namespace tailor {
namespace {

bool goes_on(char byte) {  // with a character that has begun
  return (static_cast<unsigned char>(byte) & 0xC0u) == 0x80u;
}

std::size_t begun_in(std::string_view bytes) {
  return static_cast<std::size_t>(std::count_if(bytes.begin(), bytes.end(), [](char byte) { return !goes_on(byte); }));
}

}  // namespace

std::size_t TokenPlaces::next(std::string_view bytes) {
  const bool within = !bytes.empty() && goes_on(bytes[0]) && characters_ > 0;
  const std::size_t place = within ? characters_ - 1 : characters_;
  characters_ += begun_in(bytes);
  bytes_ += bytes.size();
  return place;
}

std::size_t TokenPlaces::next_of(std::string_view text, std::string_view bytes) {
  const std::string_view rest = text.substr(std::min(bytes_, text.size()));
  if (rest.starts_with(bytes) || bytes_ > 0) return next(bytes);
  if (bytes.starts_with(' ') && rest.starts_with(bytes.substr(1))) return next(bytes.substr(1));
  return next({});
}

void TokenPlaces::end_of(std::string_view text) {
  characters_ = begun_in(text);
  bytes_ = text.size();
}

}  // namespace tailor
