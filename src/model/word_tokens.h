#pragma once
/// Words as tokens, for encoders that answer words of a text or find a piece of it: each word is encoded by itself, so
/// that every token belongs to one word. A word of nothing that the model knows is its unknown token. The blank before
/// a word goes to the tokenizer where there is one in the text; WordPiece does not see it, byte-level vocabularies do.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"
#include "text/word_spans.h"

namespace tailor {

/// Some words of a text as an encoder reads them, and those of them that it answers.
struct WordTokens {
  std::vector<std::int32_t> ids;      // with what the model wants around a text
  std::size_t first_word = 0;         // of the text: the first that is answered here
  std::vector<std::uint32_t> tokens;  // of each word that is answered here, the place of its first token in `ids`
};

/// The words of `text`. Where they do not fit into `max_tokens` there are several windows; a window has up to a quarter
/// of them in common with the one before, and every word is answered once: by the window in which it stands farthest
/// from an edge (the ends of the text are none), of two equals by the first. A word that fills a window alone is cut.
/// `first_after_blank`: the first word is read as if a blank stood before it, as transformers reads lists of words.
std::vector<WordTokens> encode_words(const Tokenizer& tokenizer, std::string_view text, std::span<const WordSpan> words,
                                     bool first_after_blank, std::size_t max_tokens);

/// A question and as many words of a text as fit beside it, put together as Tokenizer::encode_pair() does.
struct QuestionWindow {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> types;          // as PairTokens
  std::size_t first_word = 0;               // of the text
  std::vector<std::uint32_t> first_tokens;  // of each word of the window, its place in `ids`
  std::uint32_t end = 0;                    // place after the last word's last token

  std::uint32_t last_token(std::size_t word) const {  // counted in the window
    return (word + 1 < first_tokens.size() ? first_tokens[word + 1] : end) - 1;
  }
};

struct QuestionLimits {
  std::size_t tokens = 384;   // of a window
  std::size_t question = 64;  // tokens of the question that are kept
  std::size_t overlap = 128;  // tokens that a window has in common with the one before, at most
};
std::vector<QuestionWindow> encode_question(const Tokenizer& tokenizer, std::string_view question,
                                            std::string_view text, std::span<const WordSpan> words,
                                            const QuestionLimits& limits);

}  // namespace tailor
