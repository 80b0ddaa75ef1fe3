#pragma once
/// What a model thinks before it answers, between <think> and </think> as DeepSeek-R1, Qwen3 and their kin write it.
/// Answers tell it apart as `reasoning_content` (DeepSeek's and llama.cpp's name) and `reasoning` (vLLM's).

#include <string>
#include <string_view>

namespace tailor {

inline constexpr std::string_view kThoughtsOpen = "<think>", kThoughtsClose = "</think>";

/// One answer, as it comes. Thoughts are only at its beginning; blanks around them are nobody's. What may be the
/// beginning of a mark is held back. Threads: one at a time.
class ReasoningReader {
 public:
  /// `begun`: the prompt ends with what opens the thoughts.
  explicit ReasoningReader(bool begun) : place_(begun ? Place::kInside : Place::kBefore) {}

  struct Told {
    std::string reasoning, content;
  };
  Told add(std::string_view text);
  /// The answer is at its end: what was held back.
  Told finish();

 private:
  enum class Place { kBefore, kInside, kBehind, kContent };
  Place place_;
  bool said_ = false;  // thoughts were told
  std::string held_;
};

/// A prompt that ends so has begun the thoughts.
bool opens_thoughts(std::string_view prompt);

}  // namespace tailor
