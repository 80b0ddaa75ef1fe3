#pragma once
/// A prompt as text of known origin, and its tokens. Only our own text may hold control tokens ("<|im_end|>"); a user's
/// text that spells one stays text.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/marked_text.h"
#include "model/tokenizer.h"

namespace tailor {

struct PromptPiece {
  std::string text;
  bool trusted = false;
};
using PromptText = std::vector<PromptPiece>;

std::string joined(const PromptText& text);
/// What people wrote is not trusted.
PromptText pieces_of(const MarkedText& text);

/// Length of the longest common beginning.
std::size_t common_length(std::span<const std::int32_t> a, std::span<const std::int32_t> b);

/// Control tokens of a vocabulary by their spelling.
class PromptEncoder {
 public:
  /// `tokenizer` must outlive the encoder.
  explicit PromptEncoder(const Tokenizer& tokenizer);

  /// The tokens of the whole prompt: everything between two control tokens is encoded in one go, across pieces, as the
  /// model saw it in training. BOS comes first where the model wants it and the text does not begin with it; `begins`
  /// false: the text goes on after other tokens.
  std::vector<std::int32_t> encode(const PromptText& text, bool begins = true) const;
  std::vector<std::int32_t> encode_marked(const MarkedText& text, bool begins = true) const;
  /// Behind the first control token from `from` on, of those that end an answer where `ending`; npos: there is none.
  std::size_t after_control(const MarkedText& text, std::size_t from, bool ending) const;
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  /// The control token that `text` begins with; nullptr: none.
  const std::pair<std::string, std::int32_t>* control_at(std::string_view text) const;
  const Tokenizer* tokenizer_;
  std::vector<std::pair<std::string, std::int32_t>> control_;  // longest first
  std::array<bool, 256> control_starts_{};                     // whether one begins with the byte
};

}  // namespace tailor
