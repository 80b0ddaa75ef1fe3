#pragma once
/// Text that remembers which of its bytes people wrote, through everything a template does with it. Control tokens are
/// looked for in the rest alone, so that "<|im_end|>" in a message stays text.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tailor {

struct ByteRange {
  std::size_t begin = 0, end = 0;  // half open
  bool operator==(const ByteRange&) const = default;
};

/// UTF-8. `foreign` holds ranges in order that neither touch nor are empty.
struct MarkedText {
  std::string bytes;
  std::vector<ByteRange> foreign;

  static MarkedText own(std::string_view text) { return {std::string(text), {}}; }
  static MarkedText of_people(std::string_view text);

  std::size_t size() const { return bytes.size(); }
  bool empty() const { return bytes.empty(); }
  void append(std::string_view own_text) { bytes += own_text; }
  void append(const MarkedText& text);
  /// `replacement` in place of bytes of this origin.
  void append_as(std::string_view text, bool is_foreign);
  MarkedText part(std::size_t begin, std::size_t end) const;
  /// The longest range from `at` of one origin; `at` < size().
  std::size_t end_of_run(std::size_t at) const;
  bool is_foreign(std::size_t at) const;
  bool operator==(const MarkedText&) const = default;
};

}  // namespace tailor
