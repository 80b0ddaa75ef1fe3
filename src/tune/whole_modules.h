#pragma once
/// Modules of a decoder that are trained whole beside low-rank updates, and saved with them (PEFT's modules_to_save):
/// the table of words and the output layer, which new words or another language need.

#include <array>
#include <string>
#include <vector>

#include "core/result.h"
#include "tune/decoder_config.h"

namespace tailor::tune::decoder {

struct WholeModule {
  std::string tensor;                     // "token_embd.weight": trained under this name
  std::vector<std::string> hugging_face;  // "model.embed_tokens": modules whose weight it is
};

struct KnownModule {
  std::string tensor;        // without ".weight"
  std::string hugging_face;  // the same
  std::string last() const { return hugging_face.substr(hugging_face.rfind('.') + 1); }
};
/// Table of words, output layer.
Result<std::array<KnownModule, 2>> known_modules(const DecoderConfig& config);

/// By the last part of Hugging Face's names ("embed_tokens", "wte", "lm_head") or by GGUF's ("token_embd", "output").
/// Of a model whose output layer is its table of words either name means both. Errors: a name that is neither, with
/// those that are.
Result<std::vector<WholeModule>> whole_modules(const DecoderConfig& config, bool tied,
                                               const std::vector<std::string>& names);

}  // namespace tailor::tune::decoder
