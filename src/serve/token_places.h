#pragma once
/// Where tokens begin in a text.

#include <cstddef>
#include <string_view>

namespace tailor {

/// Counts characters (Unicode code points, as Python does) from the beginning of a text that comes token by token.
/// Threads: one at a time.
class TokenPlaces {
 public:
  /// The place of a token of these bytes, which are the next of the text. One that begins within a character has that
  /// character's place.
  std::size_t next(std::string_view bytes);
  /// The same of a token of `text`, which the text begins with. A token that begins it without being written there has
  /// no length (BOS), nor has a blank that the tokenizer puts before the first word.
  std::size_t next_of(std::string_view text, std::string_view bytes);
  /// All tokens of `text`, which the text begins with, were told.
  void end_of(std::string_view text);

 private:
  std::size_t characters_ = 0, bytes_ = 0;  // begun, taken
};

}  // namespace tailor
