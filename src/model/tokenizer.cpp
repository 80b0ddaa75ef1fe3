#include "model/tokenizer.h"

#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <optional>

#include "model/byte_level_words.h"
#include "model/llama_runtime.h"
#include "model/utf8.h"
#include "model/word_cache.h"
#include "model/wordpiece.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
// llama.cpp splits texts with std::regex, which recurses: a run of 40,000 letters or blanks overflowed an 8 MB stack
// with the pre-tokenizers of DeepSeek, Falcon, GPT-4o, Tekken, Viking and Poro.
constexpr std::size_t kPieceBytes = 4 << 10;  // texts beyond this are cut
constexpr std::size_t kLongestRun = 8 << 10;  // and a text without a place to cut, here
constexpr std::size_t kBytesPerToken = 64;    // no token of a text is longer, runs of blanks aside
constexpr std::string_view kPhantomSpace = "\xE2\x96\x81";
constexpr std::string_view kMarkedPiece = "##\xE2\x96\x81";  // our importer leaves such a piece as it is

std::optional<std::string> meta(const llama_model* model, const char* key) {
  char buffer[256];
  const std::int32_t n = llama_model_meta_val_str(model, key, buffer, sizeof buffer);
  if (n < 0) return std::nullopt;
  return std::string(buffer, std::min<std::size_t>(static_cast<std::size_t>(n), sizeof buffer - 1));
}

bool flag(const llama_model* model, const char* key, bool otherwise) {
  const auto text = meta(model, key);
  return text ? *text == "true" : otherwise;
}

/// Tokens that users added are cut out of a text before it is split into words: such vocabularies go the long way.
WordRule rule_of(const llama_model* model, const llama_vocab* vocab) {
  for (std::int32_t i = 0; i < llama_vocab_n_tokens(vocab); ++i) {
    if ((static_cast<unsigned>(llama_vocab_get_attr(vocab, i)) & LLAMA_TOKEN_ATTR_USER_DEFINED) != 0)
      return WordRule::kUnknown;
  }
  return word_rule(meta(model, "tokenizer.ggml.pre").value_or(""));
}

/// BERT's vocabulary back from llama.cpp's form of it.
BertVocabulary word_piece_vocabulary(const llama_model* model, const llama_vocab* vocab) {
  BertVocabulary v;
  const std::int32_t n = llama_vocab_n_tokens(vocab);
  for (std::int32_t i = 0; i < n; ++i) {
    std::string text = llama_vocab_get_text(vocab, i);
    const auto attributes = static_cast<unsigned>(llama_vocab_get_attr(vocab, i));
    std::int32_t type = 1;
    if ((attributes & LLAMA_TOKEN_ATTR_CONTROL) != 0) {
      type = 3;
    } else if ((attributes & (LLAMA_TOKEN_ATTR_UNUSED | LLAMA_TOKEN_ATTR_UNDEFINED)) != 0) {
      type = 5;
    }
    if (type != 3 && !text.starts_with(kMarkedPiece)) {
      text = text.starts_with(kPhantomSpace) ? text.substr(kPhantomSpace.size()) : "##" + text;
    }
    v.tokens.push_back(std::move(text));
    v.types.push_back(type);
  }
  v.cls = llama_vocab_bos(vocab);  // llama.cpp's converter and ours put [CLS] there
  v.sep = llama_vocab_sep(vocab);
  v.pad = llama_vocab_pad(vocab);
  v.mask = llama_vocab_mask(vocab);
  v.unk = -1;
  if (const auto unk = meta(model, "tokenizer.ggml.unknown_token_id")) v.unk = std::atoi(unk->c_str());
  if (v.unk < 0 || v.unk >= n) {
    const auto it = std::find(v.tokens.begin(), v.tokens.end(), "[UNK]");
    v.unk = it == v.tokens.end() ? -1 : static_cast<std::int32_t>(it - v.tokens.begin());
  }
  v.settings.lowercase = flag(model, "tokenizer.ggml.normalizer.lowercase", true);
  v.settings.strip_accents = flag(model, "tokenizer.ggml.normalizer.strip_accents", v.settings.lowercase);
  v.settings.clean_text = flag(model, "tailor.tokenizer.clean_text", true);
  v.settings.handle_chinese_chars = flag(model, "tailor.tokenizer.handle_chinese_chars", true);
  if (const auto n_chars = meta(model, "tailor.tokenizer.max_chars_per_word")) {
    v.settings.max_chars_per_word = std::atoi(n_chars->c_str());
  }
  return v;
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// The end of a CJK ideograph, kana or Hangul syllable of three bytes.
bool ends_cjk(std::string_view text, std::size_t end) {
  if (end < 3) return false;
  const auto b0 = static_cast<unsigned char>(text[end - 3]);
  const auto b1 = static_cast<unsigned char>(text[end - 2]);
  return (b0 >= 0xE4 && b0 <= 0xE9) || (b0 == 0xE3 && b1 >= 0x81) || (b0 >= 0xEA && b0 <= 0xEC && b1 >= 0x80);
}

/// Whether every pre-tokenizer in use ends a token before position `at`: a letter, then a blank before a letter, or a
/// comma or full stop.
bool is_cut(std::string_view text, std::size_t at) {
  if (at == 0 || at + 1 >= text.size() || !(is_letter(text[at - 1]) || ends_cjk(text, at))) return false;
  if (text[at] == ' ') return is_letter(text[at + 1]);
  if (text[at] == ',' || text[at] == '.') return true;
  const std::string_view rest = text.substr(at, 3);
  return rest == "\xE3\x80\x81" || rest == "\xE3\x80\x82" ||
         rest == "\xEF\xBC\x8C";  // CJK comma, full stop, wide comma
}

/// Length of the next piece of a long text.
std::size_t piece_length(std::string_view text) {
  if (text.size() <= kPieceBytes) return text.size();
  for (std::size_t at = kPieceBytes; at > kPieceBytes / 2; --at) {
    if (is_cut(text, at)) return at;
  }
  const std::size_t last = std::min(text.size(), kLongestRun);
  for (std::size_t at = kPieceBytes; at < last; ++at) {
    if (is_cut(text, at)) return at;
  }
  std::size_t at = last;
  while (at > 0 && at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

}  // namespace

struct Tokenizer::Impl {
  LlamaModelPtr owned;  // empty where the model is borrowed
  const llama_vocab* vocab = nullptr;
  enum llama_vocab_type type = LLAMA_VOCAB_TYPE_NONE;
  std::unique_ptr<const WordPiece> word_piece;  // BERT only
  WordRule words = WordRule::kUnknown;          // byte-level BPE: texts are split here, and words kept
  mutable WordCachePool caches;                 // of them
  std::vector<std::int32_t> head, tail;         // what add_special puts around a text
  bool cuts = false;                            // long texts may be cut: byte-level BPE, which never looks over a cut
  bool adds_prefix_space = false;               // as ByteLevel's add_prefix_space
  bool keeps_first_blank = false;               // as Metaspace: a text that begins with a blank is given no other
  std::int32_t blank = -1;                      // the piece that is one blank
  bool composes = false;                        // texts are brought to NFC
  bool modern_bert = false;                     // one separator between the texts of a pair
  std::int32_t unk = -1;
  int token_types = 1;

  void find_ends() {
    if (word_piece) {
      head = {word_piece->vocabulary().cls};
      tail = {word_piece->vocabulary().sep};
      return;
    }
    if (llama_vocab_get_add_bos(vocab) && llama_vocab_bos(vocab) >= 0) head = {llama_vocab_bos(vocab)};
    if (llama_vocab_get_add_sep(vocab) && llama_vocab_sep(vocab) >= 0) tail = {llama_vocab_sep(vocab)};
    // One token may be both: llama.cpp's converter asks for both in RoBERTa's files.
    const std::int32_t eos = llama_vocab_eos(vocab);
    if (llama_vocab_get_add_eos(vocab) && eos >= 0 && (tail.empty() || tail[0] != eos)) tail.push_back(eos);
  }

  /// Appends the ids of the bare text until `out` holds `limit`; more may come.
  void body(std::string_view text, bool parse_special, std::size_t limit, std::vector<std::int32_t>& out) const {
    if (word_piece) {
      parse_special ? word_piece->encode_with_special(text, limit, out) : word_piece->encode(text, limit, out);
      return;
    }
    // Where the text cannot be cut into pieces at least no more of it is read than `limit` ids can need.
    const std::size_t wanted = limit - std::min(limit, out.size());
    if (!cuts && wanted < text.size() / kBytesPerToken) text = text.substr(0, (wanted + 16) * kBytesPerToken);
    std::string repaired;
    if (!is_valid_utf8(text)) text = repaired = to_valid_utf8(text);
    if (composes) text = repaired = nfc(text);
    if (keeps_first_blank && text == " " && blank >= 0) {
      out.push_back(blank);
      return;
    }
    if (keeps_first_blank && text.size() > 1 && text[0] == ' ') text.remove_prefix(1);  // llama.cpp puts one there
    if (adds_prefix_space && !text.empty() && text[0] != ' ') text = repaired = " " + std::string(text);
    while (!text.empty() && out.size() < limit) {
      const std::size_t length = cuts ? piece_length(text) : text.size();
      const std::string_view part = text.substr(0, length);
      if (words == WordRule::kUnknown || parse_special) {
        piece(part, parse_special, out);
      } else {
        word_by_word(part, out);
      }
      text.remove_prefix(length);
    }
  }

  void word_by_word(std::string_view text, std::vector<std::int32_t>& out) const {
    const WordCachePool::Lease lease(caches);
    WordCache& cache = *lease;
    const auto by_llama = [this](std::string_view word, std::vector<std::int32_t>& to) { piece(word, false, to); };
    for (std::size_t at = 0; at < text.size();) {
      const TextPiece next = next_piece(text, at);
      const std::string_view part = text.substr(at, next.end - at);
      at = next.end;
      if (!next.words) {
        cache.append(part, out, by_llama);
        continue;
      }
      for (std::size_t begin = 0; begin < part.size();) {
        const std::size_t end = word_end(words, part, begin);
        cache.append(part.substr(begin, end - begin), out, by_llama);
        begin = end;
      }
    }
  }

  void piece(std::string_view text, bool parse_special, std::vector<std::int32_t>& out) const {
    const auto before = static_cast<std::int64_t>(out.size());
    const auto length = static_cast<std::int32_t>(text.size());
    std::int32_t room = length / 2 + 16;
    for (;;) {
      out.resize(static_cast<std::size_t>(before + room));
      const std::int32_t n =
          llama_tokenize(vocab, text.data(), length, out.data() + before, room, false, parse_special);
      if (n >= 0) {
        out.resize(static_cast<std::size_t>(before + n));
        return;
      }
      room = -n;  // what it needs
    }
  }
};

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& gguf) {
  auto impl = std::make_unique<Impl>();
  TAILOR_TRY(impl->owned, load_llama_model(gguf, {.vocab_only = true}));
  const llama_model* model = impl->owned.get();
  auto made = make(model, std::move(impl));
  if (!made)
    return Error{made.error().code, fmt::format("{}: {}", gguf.string(), made.error().message), made.error().hint};
  return made;
}

Result<Tokenizer> Tokenizer::of(const llama_model* model) {
  return make(model, std::make_unique<Impl>());
}

Result<Tokenizer> Tokenizer::make(const llama_model* model, std::unique_ptr<Impl> impl) {
  impl->vocab = llama_model_get_vocab(model);
  impl->type = llama_vocab_type(impl->vocab);
  const auto unusable = [](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("the vocabulary cannot be used: {}", what),
                 "use another file of this model"};
  };
  switch (impl->type) {
    case LLAMA_VOCAB_TYPE_WPM: {
      BertVocabulary v = word_piece_vocabulary(model, impl->vocab);
      if (v.cls < 0 || v.sep < 0 || v.unk < 0) return unusable("it lacks [CLS], [SEP] or [UNK]");
      impl->unk = v.unk;
      impl->word_piece = std::make_unique<const WordPiece>(std::move(v));
      break;
    }
    case LLAMA_VOCAB_TYPE_BPE:
      impl->cuts = true;
      impl->words = rule_of(model, impl->vocab);
      impl->adds_prefix_space = flag(model, "tailor.tokenizer.add_prefix_space", false);
      impl->modern_bert = meta(model, "tokenizer.ggml.pre") == "modern-bert";
      impl->composes = flag(model, "tailor.tokenizer.nfc", impl->modern_bert);
      break;
    case LLAMA_VOCAB_TYPE_SPM: {
      impl->keeps_first_blank = flag(model, "tailor.tokenizer.metaspace", false);
      // llama.cpp throws on the first byte for which there is no token.
      std::vector<bool> have(256, false);
      for (std::int32_t i = 0; i < llama_vocab_n_tokens(impl->vocab); ++i) {
        const std::string_view text = llama_vocab_get_text(impl->vocab, i);
        if (text == kPhantomSpace) impl->blank = i;
        if (text.size() == 6 && text.starts_with("<0x") && text[5] == '>') {
          have[std::strtoul(std::string(text.substr(3, 2)).c_str(), nullptr, 16) & 0xFF] = true;
        } else if (text.size() == 1) {
          have[static_cast<unsigned char>(text[0])] = true;
        }
      }
      if (std::find(have.begin(), have.end(), false) != have.end()) return unusable("it lacks tokens for single bytes");
      break;
    }
    case LLAMA_VOCAB_TYPE_UGM:
      break;
    default:
      return unusable("its kind is not one of BPE, SentencePiece (BPE, unigram) and WordPiece");
  }
  if (impl->unk < 0) {
    if (const auto text = meta(model, "tokenizer.ggml.unknown_token_id")) impl->unk = std::atoi(text->c_str());
  }
  impl->find_ends();
  if (impl->word_piece) {
    const auto types = meta(model, "tokenizer.ggml.token_type_count");
    impl->token_types = types ? std::max(1, std::atoi(types->c_str())) : 2;
  }
  return Tokenizer(std::move(impl));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special, bool parse_special) const {
  std::vector<std::int32_t> ids;
  if (add_special) ids = impl_->head;
  impl_->body(text, parse_special, kNoLimit, ids);
  if (add_special) ids.insert(ids.end(), impl_->tail.begin(), impl_->tail.end());
  return ids;
}

void Tokenizer::append(std::string_view text, std::vector<std::int32_t>& out) const {
  impl_->body(text, false, kNoLimit, out);
}

std::vector<std::int32_t> Tokenizer::encode_truncated(std::string_view text, std::size_t max_tokens, bool add_special,
                                                      bool* truncated) const {
  std::vector<std::int32_t> ids;
  const bool cut = append_truncated(text, max_tokens, add_special, ids);
  if (truncated != nullptr) *truncated = cut;
  return ids;
}

bool Tokenizer::append_truncated(std::string_view text, std::size_t max_tokens, bool add_special,
                                 std::vector<std::int32_t>& out) const {
  const std::size_t before = out.size();
  if (add_special) out.insert(out.end(), impl_->head.begin(), impl_->head.end());
  const std::size_t tail = add_special ? impl_->tail.size() : 0;
  const std::size_t room = max_tokens > tail ? max_tokens - tail : 0;
  // One id more than fits shows whether something is left out.
  impl_->body(text, false, before + room + 1, out);
  const bool truncated = out.size() - before > room;
  if (truncated) out.resize(before + room);
  if (add_special) out.insert(out.end(), impl_->tail.begin(), impl_->tail.end());
  if (out.size() - before > max_tokens) out.resize(before + max_tokens);
  return truncated;
}

PairTokens Tokenizer::encode_pair(std::string_view pair, std::size_t max_tokens) const {
  const std::size_t border = std::min(pair.find(kPairSeparator), pair.size());
  std::vector<std::int32_t> first, second;
  impl_->body(pair.substr(0, border), false, kNoLimit, first);
  if (border < pair.size()) impl_->body(pair.substr(border + 1), false, kNoLimit, second);
  const std::vector<std::int32_t>&head = impl_->head, &tail = impl_->tail;
  const std::size_t separators = impl_->word_piece || impl_->modern_bert ? 1 : 2;  // between the texts
  const std::size_t special = head.size() + (separators + 1) * tail.size();
  const std::size_t room = max_tokens > special ? max_tokens - special : 0;
  PairTokens out;
  if (first.size() + second.size() > room) {
    out.truncated = true;
    const bool swapped = first.size() > second.size();
    std::size_t shorter = std::min(first.size(), second.size());
    std::size_t longer = shorter > room ? shorter : std::max(shorter, room - shorter);
    if (shorter + longer > room) {
      shorter = room / 2;
      longer = shorter + room % 2;
    }
    first.resize(swapped ? longer : shorter);
    second.resize(swapped ? shorter : longer);
  }
  const auto append = [&](const std::vector<std::int32_t>& ids, std::uint8_t type) {
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.types.insert(out.types.end(), ids.size(), type);
  };
  const auto second_type = static_cast<std::uint8_t>(impl_->token_types > 1 ? 1 : 0);
  append(head, 0);
  append(first, 0);
  for (std::size_t i = 0; i < separators; ++i) append(tail, 0);
  append(second, second_type);
  append(tail, second_type);
  return out;
}

int Tokenizer::token_types() const {
  return impl_->token_types;
}

std::size_t Tokenizer::count(std::string_view text, bool add_special) const {
  return encode(text, add_special).size();
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool show_special) const {
  if (impl_->word_piece) return impl_->word_piece->decode(ids, show_special);
  std::vector<std::int32_t> known;
  const auto n = static_cast<std::int32_t>(vocabulary_size());
  std::copy_if(ids.begin(), ids.end(), std::back_inserter(known), [n](std::int32_t id) { return id >= 0 && id < n; });
  std::string text(known.size() * 8 + 16, '\0');
  for (;;) {
    const std::int32_t length =
        llama_detokenize(impl_->vocab, known.data(), static_cast<std::int32_t>(known.size()), text.data(),
                         static_cast<std::int32_t>(text.size()), false, show_special);
    if (length >= 0) {
      text.resize(static_cast<std::size_t>(length));
      return text;
    }
    text.resize(static_cast<std::size_t>(-static_cast<std::int64_t>(length)));
  }
}

std::string Tokenizer::token_bytes(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= vocabulary_size()) return {};
  std::string text(32, '\0');
  for (;;) {
    const std::int32_t length =
        llama_token_to_piece(impl_->vocab, id, text.data(), static_cast<std::int32_t>(text.size()), 0, false);
    if (length >= 0) {
      text.resize(static_cast<std::size_t>(length));
      return text;
    }
    text.resize(static_cast<std::size_t>(-static_cast<std::int64_t>(length)));
  }
}

std::int32_t Tokenizer::bos() const {
  return llama_vocab_bos(impl_->vocab);
}
std::int32_t Tokenizer::eos() const {
  return llama_vocab_eos(impl_->vocab);
}
std::int32_t Tokenizer::cls() const {
  return llama_vocab_bos(impl_->vocab);
}
std::int32_t Tokenizer::sep() const {
  return llama_vocab_sep(impl_->vocab);
}
std::int32_t Tokenizer::pad() const {
  return llama_vocab_pad(impl_->vocab);
}
std::int32_t Tokenizer::unk() const {
  return impl_->unk;
}
bool Tokenizer::adds_bos() const {
  return !impl_->head.empty();
}
bool Tokenizer::adds_eos() const {
  return !impl_->word_piece && llama_vocab_get_add_eos(impl_->vocab);
}
bool Tokenizer::ends_generation(std::int32_t id) const {
  return id >= 0 && static_cast<std::size_t>(id) < vocabulary_size() && llama_vocab_is_eog(impl_->vocab, id);
}
bool Tokenizer::is_control(std::int32_t id) const {
  return id >= 0 && static_cast<std::size_t>(id) < vocabulary_size() && llama_vocab_is_control(impl_->vocab, id);
}
std::size_t Tokenizer::vocabulary_size() const {
  return static_cast<std::size_t>(llama_vocab_n_tokens(impl_->vocab));
}

}  // namespace tailor
