#include "prompt/prompt_text.h"

#include <algorithm>

namespace tailor {

std::string joined(const PromptText& text) {
  std::string out;
  for (const PromptPiece& piece : text) out += piece.text;
  return out;
}

PromptText pieces_of(const MarkedText& text) {
  PromptText out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.end_of_run(at);
    out.push_back({text.bytes.substr(at, end - at), !text.is_foreign(at)});
    at = end;
  }
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
  for (const auto& control : control_) control_starts_[static_cast<unsigned char>(control.first[0])] = true;
  std::stable_sort(control_.begin(), control_.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
}

const std::pair<std::string, std::int32_t>* PromptEncoder::control_at(std::string_view text) const {
  if (text.empty() || !control_starts_[static_cast<unsigned char>(text[0])]) return nullptr;
  const auto match =
      std::find_if(control_.begin(), control_.end(), [&](const auto& c) { return text.starts_with(c.first); });
  return match == control_.end() ? nullptr : &*match;
}

std::size_t PromptEncoder::after_control(const MarkedText& text, std::size_t from, bool ending) const {
  for (std::size_t at = from; at < text.size();) {
    const std::size_t end = text.end_of_run(at);
    if (text.is_foreign(at)) {
      at = end;
      continue;
    }
    const auto* const match = control_at(std::string_view(text.bytes).substr(at, end - at));
    if (match == nullptr) {
      ++at;
      continue;
    }
    at += match->first.size();
    if (!ending || tokenizer_->ends_generation(match->second)) return at;
  }
  return std::string::npos;
}

std::vector<std::int32_t> PromptEncoder::encode_marked(const MarkedText& text, bool begins) const {
  return encode(pieces_of(text), begins);
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
      const auto* const match = control_at(rest);
      if (match == nullptr) {
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
