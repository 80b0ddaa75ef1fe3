#include "model/word_cache.h"

#include <gtest/gtest.h>
#include <llama.h>

#include <array>

#include "core/rng.h"
#include "model/bert_normalizer.h"
#include "model/byte_level_words.h"
#include "model/gguf_writer.h"
#include "model/llama_runtime.h"
#include "model/test_support.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

namespace tailor {
namespace {

using Ids = std::vector<std::int32_t>;

TEST(WordCache, AsksOnceForAWordAndKeepsWhatItMetLast) {
  WordCache cache;
  int asked = 0;
  const auto length_and_first = [&](std::string_view word, Ids& out) {
    ++asked;
    out.push_back(static_cast<std::int32_t>(word.size()));
    if (word.size() > 1) out.push_back(word[0]);
  };
  Ids out{7};
  for (int i = 0; i < 3; ++i) {
    cache.append("ab", out, length_and_first);
    cache.append("c", out, length_and_first);
  }
  EXPECT_EQ(out, (Ids{7, 2, 'a', 1, 2, 'a', 1, 2, 'a', 1}));
  EXPECT_EQ(asked, 2);
  const std::string longest(WordCache::kLongestWord, 'x'), longer(WordCache::kLongestWord + 1, 'x');
  for (int i = 0; i < 2; ++i) {
    cache.append(longest, out, length_and_first);
    cache.append(longer, out, length_and_first);
  }
  EXPECT_EQ(asked, 2 + 1 + 2);
}

TEST(WordCache, StaysBoundedAndRightWhenItForgets) {
  WordCache cache;
  const auto number = [](std::string_view word, Ids& out) { out.push_back(std::stoi(std::string(word))); };
  for (int i = 0; i < 200'000; ++i) {
    Ids out;
    cache.append(std::to_string(i % 90'000), out, number);
    ASSERT_EQ(out, Ids{i % 90'000});
    ASSERT_LE(cache.words(), WordCache::kMostWords);
  }
}

TEST(WordCache, WordsWithoutTokensAndWithZeroBytes) {
  WordCache cache;
  int asked = 0;
  const auto nothing = [&](std::string_view, Ids&) { ++asked; };
  Ids out;
  for (const std::string_view word :
       {std::string_view("\0", 1), std::string_view("\0\0", 2), std::string_view("\0", 1)})
    cache.append(word, out, nothing);
  EXPECT_TRUE(out.empty());
  EXPECT_EQ(asked, 2);
}

/// The whole text by llama.cpp, as before words were kept.
Ids by_llama(const llama_vocab* vocab, const std::string& text) {
  Ids ids(text.size() + 16);
  const std::int32_t n = llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()), ids.data(),
                                        static_cast<std::int32_t>(ids.size()), false, false);
  ids.resize(static_cast<std::size_t>(n));
  return ids;
}

/// Texts of pieces that pre-tokenizers treat differently, in any order.
std::vector<std::string> mixed_texts(int count) {
  std::vector<std::string> pieces = {"a",   "Zoo", "'",   "'s", "'re", "'ll", "'t",      "'m", "1",  "234",
                                     " ",   "  ",  "   ", "\n", "\t",  "\r",  "\v",      "\f", "!",  "?!",
                                     "_",   "\"",  "é",   "漢", "’",   "€",   "😀",       "ß",  " x", " y",
                                     " 'd", "'ve", "the", "İ",  "٣",   "½",   "\xC2\xA0"};
  for (int c = 0; c < 128; ++c) pieces.emplace_back(1, static_cast<char>(c));
  pieces.emplace_back("e\xCC\x81");  // with a combining mark
  Rng rng(11);
  std::vector<std::string> texts;
  for (int i = 0; i < count; ++i) {
    std::string text;
    for (std::uint64_t n = 1 + rng.below(14); n > 0; --n) text += pieces[rng.below(pieces.size())];
    texts.push_back(std::move(text));
  }
  return texts;
}

TEST(ByteLevelWords, TokensAreThoseOfTheWholeText) {
  const TemporaryDirectory dir("word-cache-test");
  const auto source = GgufFile::open(testing::smollm_file()).value();
  GgufWriter writer;
  for (const auto& [key, value] : source.values()) writer.set(key, value);
  const std::vector<std::string> texts = mixed_texts(6000);
  for (const char* pre : {"smollm", "gpt-2", "starcoder"}) {
    ASSERT_NE(word_rule(pre), WordRule::kUnknown);
    writer.set("tokenizer.ggml.pre", GgufValue::string(pre));
    writer.write(dir.path() / "v.gguf").value();
    const auto model = load_llama_model(dir.path() / "v.gguf", {.vocab_only = true}).value();
    const auto tokenizer = Tokenizer::of(model.get()).value();
    for (const std::string& text : texts)
      ASSERT_EQ(tokenizer.encode(text, false), by_llama(llama_model_get_vocab(model.get()), text))
          << pre << ": " << text;
    // All pairs and what follows them.
    for (int a = 0; a < 128; ++a) {
      for (int b = 0; b < 128; b += pre == std::string_view("smollm") ? 1 : 5) {
        const std::string text = {'x', static_cast<char>(a), static_cast<char>(b), 'y'};
        ASSERT_EQ(tokenizer.encode(text, false), by_llama(llama_model_get_vocab(model.get()), text)) << pre << a << b;
      }
    }
  }
  EXPECT_EQ(word_rule("tekken"), WordRule::kUnknown);
}

TEST(ByteLevelWords, WordsCoverTheTextWhereverTheyEnd) {
  for (const std::string& text : mixed_texts(2000)) {
    for (std::size_t at = 0; at < text.size();) {
      const TextPiece piece = next_piece(text, at);
      ASSERT_GT(piece.end, at);
      ASSERT_LE(piece.end, text.size());
      const std::string_view part = std::string_view(text).substr(at, piece.end - at);
      for (std::size_t begin = 0; piece.words && begin < part.size();) {
        const std::size_t end = word_end(WordRule::kGpt2NoDigit, part, begin);
        ASSERT_GT(end, begin);
        ASSERT_LE(end, part.size());
        begin = end;
      }
      at = piece.end;
    }
  }
}

TEST(BertWords, AsciiRulesAreThoseOfTheGeneralWay) {
  for (int bits = 0; bits < 8; ++bits) {
    WordPieceSettings settings;
    settings.lowercase = (bits & 1) != 0;
    settings.strip_accents = (bits & 2) != 0;
    settings.clean_text = (bits & 4) != 0;
    const auto rules = ascii_rules(settings);
    for (int c = 0; c < 128; ++c) {
      std::vector<std::string> words, expected;
      BertWords general(settings, [&](std::string_view word, std::size_t) {
        words.emplace_back(word);
        return true;
      });
      general.run(std::string{'k', static_cast<char>(c), 'm'});
      const AsciiRule rule = rules[static_cast<std::size_t>(c)];
      switch (rule.kind) {
        case AsciiRule::kPart:
          expected = {std::string{'k', rule.as, 'm'}};
          break;
        case AsciiRule::kRemoved:
          expected = {"km"};
          break;
        case AsciiRule::kWhite:
          expected = {"k", "m"};
          break;
        case AsciiRule::kPunctuation:
          expected = {"k", std::string(1, rule.as), "m"};
          break;
      }
      EXPECT_EQ(words, expected) << bits << " " << c;
    }
  }
}

}  // namespace
}  // namespace tailor
