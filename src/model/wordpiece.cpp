#include "model/wordpiece.h"

#include <algorithm>

namespace tailor {
namespace {

constexpr std::int32_t kControl = 3, kUnused = 5;

bool starts_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

}  // namespace

WordPiece::WordPiece(BertVocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)), ascii_(ascii_rules(vocabulary_.settings)) {
  for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
    const std::string_view token = vocabulary_.tokens[i];
    const auto id = static_cast<std::int32_t>(i);
    if (vocabulary_.types[i] == kControl) special_.push_back(id);
    if (vocabulary_.types[i] == kControl || vocabulary_.types[i] == kUnused || token.empty()) continue;
    longest_piece_ = std::max(longest_piece_, token.size());
    if (token.starts_with("##")) {
      continuations_.emplace(token.substr(2), id);
    }
    starts_.emplace(token, id);  // "##" at the start of a word cannot happen: "#" is punctuation
  }
  std::sort(special_.begin(), special_.end(), [&](std::int32_t a, std::int32_t b) {
    return vocabulary_.tokens[static_cast<std::size_t>(a)].size() >
           vocabulary_.tokens[static_cast<std::size_t>(b)].size();
  });
}

void WordPiece::encode_word(std::string_view word, std::size_t code_points, std::vector<std::int32_t>& out) const {
  if (code_points > static_cast<std::size_t>(vocabulary_.settings.max_chars_per_word)) {
    out.push_back(vocabulary_.unk);
    return;
  }
  const std::size_t before = out.size();
  for (std::size_t begin = 0; begin < word.size();) {
    const auto& table = begin == 0 ? starts_ : continuations_;
    std::size_t end = std::min(word.size(), begin + longest_piece_);
    while (end < word.size() && end > begin && !starts_character(word[end])) --end;
    std::int32_t id = -1;
    while (end > begin) {
      if (const auto it = table.find(word.substr(begin, end - begin)); it != table.end()) {
        id = it->second;
        break;
      }
      do --end;
      while (end > begin && !starts_character(word[end]));
    }
    if (id < 0) {  // one piece that is unknown makes the whole word unknown
      out.resize(before);
      out.push_back(vocabulary_.unk);
      return;
    }
    out.push_back(id);
    begin = end;
  }
}

bool WordPiece::encode_any(std::string_view text, std::size_t limit, WordCache& cache,
                           std::vector<std::int32_t>& out) const {
  BertWords words(vocabulary_.settings, [&](std::string_view word, std::size_t code_points) {
    cache.append(word, out,
                 [&](std::string_view w, std::vector<std::int32_t>& to) { encode_word(w, code_points, to); });
    return out.size() < limit;
  });
  return words.run(text);
}

void WordPiece::encode(std::string_view text, std::size_t limit, std::vector<std::int32_t>& out) const {
  const WordCachePool::Lease lease(caches_);
  WordCache& cache = *lease;
  std::array<char, WordCache::kLongestWord> word;
  std::size_t length = 0;
  const auto end_word = [&] {
    if (length == 0) return true;
    cache.append(std::string_view(word.data(), length), out,
                 [&](std::string_view w, std::vector<std::int32_t>& to) { encode_word(w, w.size(), to); });
    length = 0;
    return out.size() < limit;
  };
  std::size_t begin = 0;  // of the word in the text
  for (std::size_t at = 0; at < text.size();) {
    const auto c = static_cast<unsigned char>(text[at]);
    const AsciiRule rule = c < ascii_.size() ? ascii_[c] : AsciiRule();
    if (c >= ascii_.size() || (rule.kind == AsciiRule::kPart && length == word.size())) {
      // Foreign or long words; a blank ends them in any case.
      at = std::min(text.find(' ', at), text.size());
      if (!encode_any(text.substr(begin, at - begin), limit, cache, out)) return;
      length = 0;
      begin = at;
      continue;
    }
    ++at;
    if (rule.kind == AsciiRule::kRemoved) continue;
    if (rule.kind == AsciiRule::kPart) {
      word[length++] = rule.as;
      continue;
    }
    if (!end_word()) return;
    begin = at;
    if (rule.kind == AsciiRule::kWhite) continue;
    word[length++] = rule.as;
    if (!end_word()) return;
  }
  end_word();
}

void WordPiece::encode_with_special(std::string_view text, std::size_t limit, std::vector<std::int32_t>& out) const {
  std::size_t begin = 0;  // of the text not yet encoded
  for (std::size_t at = 0; at < text.size() && out.size() < limit;) {
    const auto match = std::find_if(special_.begin(), special_.end(), [&](std::int32_t id) {
      return text.substr(at).starts_with(vocabulary_.tokens[static_cast<std::size_t>(id)]);
    });
    if (match == special_.end()) {
      ++at;
      continue;
    }
    encode(text.substr(begin, at - begin), limit, out);
    out.push_back(*match);
    at += vocabulary_.tokens[static_cast<std::size_t>(*match)].size();
    begin = at;
  }
  if (begin < text.size() && out.size() < limit) encode(text.substr(begin), limit, out);
}

std::string WordPiece::decode(std::span<const std::int32_t> ids, bool show_special) const {
  static constexpr std::pair<std::string_view, std::string_view> kCleanUp[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  std::string out;
  bool first = true;
  for (const std::int32_t id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= vocabulary_.tokens.size()) continue;
    const auto i = static_cast<std::size_t>(id);
    if (!show_special && vocabulary_.types[i] == kControl) continue;
    std::string token = vocabulary_.tokens[i];
    if (!first) token = token.starts_with("##") ? token.substr(2) : " " + token;
    for (const auto& [from, to] : kCleanUp) replace_all(token, from, to);
    out += token;
    first = false;
  }
  return out;
}

}  // namespace tailor
