#include "prompt/prompt_text.h"

#include <algorithm>

namespace tailor {

std::string joined(const PromptText& text) {
  std::string out;
  for (const PromptPiece& piece : text) out += piece.text;
  return out;
}

std::size_t common_length(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<std::size_t>(end - a.begin());
}

PromptEncoder::PromptEncoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {
  for (std::size_t i = 0; i < tokenizer.vocabulary_size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    if (!tokenizer.is_control(id)) continue;
    std::string spelling = tokenizer.decode(std::span(&id, 1), true);
    if (!spelling.empty()) control_.emplace_back(std::move(spelling), id);
  }
  std::stable_sort(control_.begin(), control_.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
}

std::vector<std::int32_t> PromptEncoder::encode(const PromptText& text, bool begins) const {
  std::vector<std::int32_t> tokens;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    const std::vector<std::int32_t> encoded = tokenizer_->encode(run, false, false);
    tokens.insert(tokens.end(), encoded.begin(), encoded.end());
    run.clear();
  };
  for (const PromptPiece& piece : text) {
    if (!piece.trusted) {
      run += piece.text;
      continue;
    }
    for (std::size_t at = 0; at < piece.text.size();) {
      const std::string_view rest = std::string_view(piece.text).substr(at);
      const auto match =
          std::find_if(control_.begin(), control_.end(), [&](const auto& c) { return rest.starts_with(c.first); });
      if (match == control_.end()) {
        run += piece.text[at++];
        continue;
      }
      flush();
      tokens.push_back(match->second);
      at += match->first.size();
    }
  }
  flush();
  if (begins && tokenizer_->adds_bos() && (tokens.empty() || tokens.front() != tokenizer_->bos()))
    tokens.insert(tokens.begin(), tokenizer_->bos());
  return tokens;
}

}  // namespace tailor
