#include <fstream>

#include "core/files.h"
#include "fuzz.h"
#include "model/bert_vocabulary.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  return {R"({"added_tokens":[{"id":0,"content":"[PAD]","special":true}],)"
          R"("normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)"
          R"("strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},)"
          R"("model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
          R"("max_input_chars_per_word":100,)"
          R"("vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"[MASK]":4,"a":5,"##b":6,"c":7}}})"};
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static tailor::TemporaryDirectory dir;
  const auto file = dir.path() / "tokenizer.json";
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  const auto vocabulary = tailor::read_bert_vocabulary(dir.path(), 16);
  if (!vocabulary) return 0;
  const auto count = static_cast<std::int32_t>(vocabulary->tokens.size());
  if (count != 16 || vocabulary->types.size() != vocabulary->tokens.size()) __builtin_trap();
  for (const auto id : {vocabulary->unk, vocabulary->cls, vocabulary->sep, vocabulary->pad, vocabulary->mask}) {
    if (id < -1 || id >= count) __builtin_trap();
  }
  (void)tailor::phantom_space_tokens(*vocabulary);
  return 0;
}
