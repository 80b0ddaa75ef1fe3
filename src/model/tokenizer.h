#pragma once
/// Texts to token ids and back, for every model that Tailor runs or trains: the one place where this is done, so that
/// training tokens equal serving tokens.
///
/// WordPiece (BERT) is ours, see wordpiece.h; the others are llama.cpp's. Ids equal transformers' (golden tests).

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

struct llama_model;  // llama.h

namespace tailor {

using TokenList = std::vector<std::int32_t>;

/// Stands between the two texts of a pair where both are kept in one string (U+001F, "unit separator").
inline constexpr char kPairSeparator = '\x1f';

struct PairTokens {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> types;  // one an id: 1 in the second text and after it, where the model has two types
  bool truncated = false;
};

/// Immutable and safe to share between threads.
class Tokenizer {
 public:
  /// Loads the vocabulary alone (no weights) of a GGUF file.
  static Result<Tokenizer> load(const std::filesystem::path& gguf);
  /// Over a model that is loaded already; the model must outlive the tokenizer.
  static Result<Tokenizer> of(const llama_model* model);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Ids of a text. `add_special` puts around it what the model was trained with ([CLS] … [SEP], <s> … </s>; BOS where
  /// the model wants one). Strings that look like control tokens ("<|im_end|>", "[SEP]") stay text unless
  /// `parse_special`: only our own templates may set it, never a user's text. Broken UTF-8 counts as U+FFFD.
  ///
  /// Texts of many kilobytes are encoded in pieces cut where a blank or comma stands between letters, which changes no
  /// token; a run of 8 KiB without such a place (no real text) is cut anyway, so that time and stack stay bounded.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special, bool parse_special = false) const;

  /// encode(text, false) appended to `out`; nothing is allocated where it has room.
  void append(std::string_view text, std::vector<std::int32_t>& out) const;

  /// The first `max_tokens` ids, special ones counted and kept (as transformers truncates); a long text is read only as
  /// far as needed. `truncated`, where given, tells whether something was left out.
  std::vector<std::int32_t> encode_truncated(std::string_view text, std::size_t max_tokens, bool add_special,
                                             bool* truncated = nullptr) const;

  /// The same appended to `out`, which keeps what it holds; nothing is allocated where it has room. True: something was
  /// left out.
  bool append_truncated(std::string_view text, std::size_t max_tokens, bool add_special,
                        std::vector<std::int32_t>& out) const;

  /// A pair as the encoder was trained to read it: "[CLS] first [SEP] second [SEP]" (BERT, DistilBERT), "<s> first
  /// </s></s> second </s>" (RoBERTa). Where both do not fit, tokens go from the longer text first, as transformers'
  /// truncation "longest_first" does. `pair`: both texts with kPairSeparator between them; without one the second is
  /// empty. Meant for encoders, which put something around a text.
  PairTokens encode_pair(std::string_view pair, std::size_t max_tokens) const;
  /// Token types that the model knows: 2 for BERT, 1 for others.
  int token_types() const;

  /// encode(text, add_special).size()
  std::size_t count(std::string_view text, bool add_special = false) const;

  /// Text of ids; control tokens are left out unless `show_special`. Ids outside the vocabulary are left out. The
  /// pieces of a text decoded one after the other join to the whole only for byte-level models; bytes may be half a
  /// character.
  std::string decode(std::span<const std::int32_t> ids, bool show_special = false) const;

  /// What one token adds to a generated text, as llama.cpp writes it: bytes, perhaps half a character; a blank that
  /// begins a word is part of it. Empty: control and unused tokens, ids outside the vocabulary.
  std::string token_bytes(std::int32_t id) const;

  // Ids of special tokens; -1: the model has none.
  std::int32_t bos() const;
  std::int32_t eos() const;
  std::int32_t cls() const;  // BERT's [CLS]; else bos()
  std::int32_t sep() const;
  std::int32_t pad() const;
  std::int32_t unk() const;
  bool adds_bos() const;  // whether encode(…, add_special) does
  bool adds_eos() const;
  /// Whether the id ends a generated answer (EOS, end of turn, …).
  bool ends_generation(std::int32_t id) const;
  /// Whether the id is a control token, which text never becomes.
  bool is_control(std::int32_t id) const;
  std::size_t vocabulary_size() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  static Result<Tokenizer> make(const llama_model* model, std::unique_ptr<Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace tailor
