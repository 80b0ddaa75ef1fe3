#include "serve/reasoning.h"

#include <algorithm>
#include <utility>

namespace tailor {
namespace {

constexpr const char* kBlanks = " \t\r\n";

void drop_leading_blanks(std::string& text) {
  text.erase(0, std::min(text.find_first_not_of(kBlanks), text.size()));
}

/// Behind the last character that is no blank.
std::size_t end_of_words(std::string_view text) {
  const std::size_t last = text.find_last_not_of(kBlanks);
  return last == std::string_view::npos ? 0 : last + 1;
}

/// Where an end of the text begins that may become `mark`; its size: nowhere.
std::size_t may_begin(std::string_view text, std::string_view mark) {
  for (std::size_t n = std::min(mark.size() - 1, text.size()); n > 0; --n) {
    if (text.substr(text.size() - n) == mark.substr(0, n)) return text.size() - n;
  }
  return text.size();
}

}  // namespace

ReasoningReader::Told ReasoningReader::add(std::string_view text) {
  held_ += text;
  Told out;
  if (place_ == Place::kBefore) {
    const std::string_view words =
        std::string_view(held_).substr(std::min(held_.find_first_not_of(kBlanks), held_.size()));
    if (words.size() < kThoughtsOpen.size() && kThoughtsOpen.starts_with(words)) return out;
    if (words.starts_with(kThoughtsOpen)) {
      held_ = std::string(words.substr(kThoughtsOpen.size()));
      place_ = Place::kInside;
    } else {
      place_ = Place::kContent;
    }
  }
  if (place_ == Place::kInside) {
    if (!said_) drop_leading_blanks(held_);
    const std::size_t close = held_.find(kThoughtsClose);
    const std::size_t known = close != std::string::npos ? close : may_begin(held_, kThoughtsClose);
    const std::size_t told =
        end_of_words(std::string_view(held_).substr(0, known));  // blanks may stand before the mark
    out.reasoning = held_.substr(0, told);
    said_ = said_ || told > 0;
    held_.erase(0, close != std::string::npos ? close + kThoughtsClose.size() : told);
    if (close != std::string::npos) place_ = Place::kBehind;
  }
  if (place_ == Place::kBehind) {
    drop_leading_blanks(held_);
    if (!held_.empty()) place_ = Place::kContent;
  }
  if (place_ == Place::kContent) out.content = std::exchange(held_, {});
  return out;
}

ReasoningReader::Told ReasoningReader::finish() {
  std::string rest = std::exchange(held_, {});
  if (place_ != Place::kInside) return {"", std::move(rest)};
  rest.resize(end_of_words(rest));
  return {std::move(rest), ""};
}

bool opens_thoughts(std::string_view prompt) {
  return prompt.substr(0, end_of_words(prompt)).ends_with(kThoughtsOpen);
}

}  // namespace tailor
