#pragma once
/// An answer's bytes on their way out: whole characters only, and nothing of a stop text.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tailor {

/// Bytes at the end of `text` that begin a character which is not whole yet: 0 to 3.
std::size_t unfinished_bytes(std::string_view text);

/// Threads: one at a time.
class TextStream {
 public:
  /// `keep_stop`: the stop text that ends the answer stays a part of it.
  explicit TextStream(std::vector<std::string> stops = {}, bool keep_stop = false)
      : stops_(std::move(stops)), keep_stop_(keep_stop) {}

  /// Takes a token's bytes. False: a stop text is complete and the answer at its end.
  bool add(std::string_view bytes);
  /// The answer is at its end: what was held back is part of it.
  void finish();
  /// What may leave since the last call.
  std::string take();

  const std::string& text() const { return text_; }  // all of it, held back or not; whole after finish()
  const std::string& stop() const { return stop_; }  // the stop text that was met; empty: none

 private:
  std::vector<std::string> stops_;
  bool keep_stop_;
  std::string text_, stop_;
  std::size_t sent_ = 0, free_ = 0;  // taken; may be taken
};

}  // namespace tailor
