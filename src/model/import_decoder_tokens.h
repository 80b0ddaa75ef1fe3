#pragma once
/// The tokenizer of a Hugging Face decoder directory, as GGUF wants it.
///
/// Byte-level BPE (GPT-2's kind): the pre-tokenizer must be one of those that llama.cpp knows, recognised by its own
/// description in tokenizer.json, never by the model's name; another one is refused.
/// SentencePiece's BPE with byte fallback (llama, mistral, gemma, phi3): scores from tokenizer.model, or from the order
/// of the merges in tokenizer.json where only that is there.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "model/gguf_writer.h"
#include "model/token_table.h"

namespace tailor {

struct DecoderVocabulary {
  std::string model;                // "gpt2" or "llama", tokenizer.ggml.model
  std::string pre = "default";      // tokenizer.ggml.pre
  std::vector<std::string> tokens;  // one for each embedding row; those without a token are "[PAD<id>]"
  std::vector<std::int32_t> types;  // llama.cpp's token types
  std::vector<float> scores;        // "llama": highest merged first
  std::vector<std::string> merges;  // "gpt2": "left right", first merged first
  std::int32_t bos = -1, eos = -1, unk = -1, sep = -1, pad = -1, cls = -1, mask = -1;  // -1: none
  bool add_bos = false, add_eos = false;                                               // put around a text
  bool leading_space = false;  // a text is given a leading blank: by "llama" always, by "gpt2" where it has none
  bool metaspace = false;      // "llama" as well only where it has none
  bool composed = false;       // texts are brought to Unicode's NFC first
  std::string chat_template;   // Jinja; empty: none
  std::map<std::string, std::string> named_templates;  // others by name: "tool_use" is for conversations with tools
};

/// `rows` is the number of embedding rows: more tokens than that are an error. `config` is config.json, which names
/// special tokens where the tokenizer's files do not.
Result<DecoderVocabulary> read_decoder_vocabulary(const std::filesystem::path& dir, std::int64_t rows,
                                                  const TokenJson& config);

/// The keys "tokenizer.*", as llama.cpp's converter names them, and "tailor.tokenizer.*" for what llama.cpp does not
/// know.
void set_vocabulary(GgufWriter& writer, const DecoderVocabulary& vocabulary);

/// llama.cpp's name of the pre-tokenizer that tokenizer.json describes, and the other way round. `ignore_merges` is the
/// model's: whole words that are tokens are not taken apart.
struct PreTokenizer {
  std::string name;  // "gpt-2", "llama-bpe", …
  bool leading_space = false;
};
Result<PreTokenizer> recognize_pre_tokenizer(const TokenJson& pre_tokenizer, bool ignore_merges);
/// tokenizer.json's "pre_tokenizer" for llama.cpp's name; nothing where it is not known.
std::optional<TokenJson> pre_tokenizer_json(std::string_view name, bool leading_space);
/// Whether llama.cpp's pre-tokenizer of that name keeps whole words.
bool ignores_merges(std::string_view name);

}  // namespace tailor
