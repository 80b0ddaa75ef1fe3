#include "model/word_tokens.h"

#include <algorithm>
#include <string>

namespace tailor {
namespace {

/// What the model wants before and after a text.
struct Frame {
  std::vector<std::int32_t> head, tail;
  std::size_t separators = 1;  // tails between the texts of a pair

  explicit Frame(const Tokenizer& tokenizer) {
    const auto around = tokenizer.encode("", /*add_special=*/true);
    const std::size_t before = !around.empty() && around.front() == tokenizer.cls() ? 1 : 0;
    head.assign(around.begin(), around.begin() + static_cast<std::ptrdiff_t>(before));
    tail.assign(around.begin() + static_cast<std::ptrdiff_t>(before), around.end());
    if (tail.empty()) return;
    const std::string pair(1, kPairSeparator);
    const std::size_t all = tokenizer.encode_pair(pair, around.size() + 64).ids.size();
    separators = (all - around.size()) / tail.size();
  }
};

std::size_t room_beside(std::size_t used, std::size_t limit) {
  return std::max<std::size_t>(1, limit > used ? limit - used : 0);
}

/// Never nothing, at most `limit` ids.
std::vector<std::int32_t> word_of(const Tokenizer& tokenizer, std::string_view text, const WordSpan& span,
                                  bool first_after_blank, std::size_t limit) {
  const bool blank = span.begin == 0 ? first_after_blank : text[span.begin - 1] == ' ';
  std::string word(blank ? " " : "");
  word += text.substr(span.begin, span.end - span.begin);
  auto ids = tokenizer.encode_truncated(word, limit, /*add_special=*/false);
  if (ids.empty()) ids.push_back(std::max(0, tokenizer.unk()));
  return ids;
}

/// Words [first, end) that one window holds.
struct Piece {
  std::size_t first = 0, end = 0;
};

/// All words (none is longer than `room`) in windows of `room` tokens; two neighbours have at most `overlap` tokens in
/// common.
std::vector<Piece> pieces_of(const std::vector<std::vector<std::int32_t>>& tokens, std::size_t room,
                             std::size_t overlap) {
  std::vector<Piece> pieces;
  for (std::size_t first = 0; first < tokens.size();) {
    std::size_t end = first;
    for (std::size_t size = 0; end < tokens.size() && size + tokens[end].size() <= room;) size += tokens[end++].size();
    pieces.push_back({first, end});
    if (end == tokens.size()) break;
    std::size_t next = end, again = 0;  // words that the next window has as well, beside one more at least
    const std::size_t most = std::min(overlap, room - tokens[end].size());
    while (next > first + 1 && again + tokens[next - 1].size() <= most) again += tokens[--next].size();
    first = next;
  }
  return pieces;
}

/// By word: the window that answers it.
std::vector<std::size_t> farthest_from_an_edge(const std::vector<std::vector<std::int32_t>>& tokens,
                                               std::span<const Piece> pieces) {
  std::vector<std::size_t> before{0};  // tokens before each word, and of all
  for (const auto& word : tokens) before.push_back(before.back() + word.size());
  std::vector<std::size_t> out(tokens.size(), 0), distance(tokens.size(), 0);
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const auto [first, end] = pieces[p];
    for (std::size_t w = first; w < end; ++w) {
      const std::size_t far = before.back() + 1;
      const std::size_t left = first == 0 ? far : before[w] - before[first];
      const std::size_t right = end == tokens.size() ? far : before[end] - before[w + 1];
      if (const std::size_t d = std::min(left, right) + 1; d > distance[w]) {
        distance[w] = d;
        out[w] = p;
      }
    }
  }
  return out;
}

}  // namespace

std::vector<WordTokens> encode_words(const Tokenizer& tokenizer, std::string_view text, std::span<const WordSpan> words,
                                     bool first_after_blank, std::size_t max_tokens) {
  const Frame frame(tokenizer);
  const std::size_t room = room_beside(frame.head.size() + frame.tail.size(), max_tokens);
  std::vector<std::vector<std::int32_t>> tokens;
  for (const WordSpan& span : words) tokens.push_back(word_of(tokenizer, text, span, first_after_blank, room));
  const std::vector<Piece> pieces = pieces_of(tokens, room, room / 4);
  const std::vector<std::size_t> answering = farthest_from_an_edge(tokens, pieces);

  std::vector<WordTokens> windows;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    WordTokens window{frame.head, 0, {}};
    for (std::size_t w = pieces[p].first; w < pieces[p].end; ++w) {
      if (answering[w] == p) {
        if (window.tokens.empty()) window.first_word = w;
        window.tokens.push_back(static_cast<std::uint32_t>(window.ids.size()));
      }
      window.ids.insert(window.ids.end(), tokens[w].begin(), tokens[w].end());
    }
    if (window.tokens.empty()) continue;
    window.ids.insert(window.ids.end(), frame.tail.begin(), frame.tail.end());
    windows.push_back(std::move(window));
  }
  return windows;
}

std::vector<QuestionWindow> encode_question(const Tokenizer& tokenizer, std::string_view question,
                                            std::string_view text, std::span<const WordSpan> words,
                                            const QuestionLimits& limits) {
  const Frame frame(tokenizer);
  QuestionWindow start;
  start.ids = frame.head;
  const auto asked = tokenizer.encode_truncated(question, limits.question, /*add_special=*/false);
  start.ids.insert(start.ids.end(), asked.begin(), asked.end());
  for (std::size_t i = 0; i < frame.separators; ++i)
    start.ids.insert(start.ids.end(), frame.tail.begin(), frame.tail.end());
  start.types.assign(start.ids.size(), 0);
  const std::size_t room = room_beside(start.ids.size() + frame.tail.size(), limits.tokens);
  const auto second_type = static_cast<std::uint8_t>(tokenizer.token_types() > 1 ? 1 : 0);
  std::vector<std::vector<std::int32_t>> tokens;
  for (const WordSpan& span : words) tokens.push_back(word_of(tokenizer, text, span, false, room));

  std::vector<QuestionWindow> windows;
  for (const Piece& piece : pieces_of(tokens, room, limits.overlap)) {
    QuestionWindow window = start;
    window.first_word = piece.first;
    for (std::size_t w = piece.first; w < piece.end; ++w) {
      window.first_tokens.push_back(static_cast<std::uint32_t>(window.ids.size()));
      window.ids.insert(window.ids.end(), tokens[w].begin(), tokens[w].end());
    }
    window.end = static_cast<std::uint32_t>(window.ids.size());
    window.ids.insert(window.ids.end(), frame.tail.begin(), frame.tail.end());
    window.types.resize(window.ids.size(), second_type);
    windows.push_back(std::move(window));
  }
  return windows;
}

}  // namespace tailor
