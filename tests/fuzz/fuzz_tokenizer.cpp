#include <fstream>
#include <tuple>

#include "core/files.h"
#include "fuzz.h"
#include "model/bert_vocabulary.h"
#include "model/import_byte_level.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  return {R"({"added_tokens":[{"id":0,"content":"[PAD]","special":true}],)"
          R"("normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)"
          R"("strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},)"
          R"("model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
          R"("max_input_chars_per_word":100,)"
          R"("vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"[MASK]":4,"a":5,"##b":6,"c":7}}})",
          R"({"added_tokens":[{"id":0,"content":"<s>","special":true},{"id":2,"content":"</s>","special":true}],)"
          R"("normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
          R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},)"
          R"({"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}]},)"
          R"("model":{"type":"BPE","merges":["a b",["ab","c"]],"vocab":{"<s>":0,"<pad>":1,"</s>":2,"a":3,"b":4,)"
          R"("ab":5,"c":6,"abc":7}}})"};
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static tailor::TemporaryDirectory dir;
  const auto file = dir.path() / "tokenizer.json";
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  std::ignore = tailor::read_byte_level_vocabulary(dir.path(), 16);
  const auto vocabulary = tailor::read_bert_vocabulary(dir.path(), 16);
  if (!vocabulary) return 0;
  const auto count = static_cast<std::int32_t>(vocabulary->tokens.size());
  if (count != 16 || vocabulary->types.size() != vocabulary->tokens.size()) __builtin_trap();
  for (const auto id : {vocabulary->unk, vocabulary->cls, vocabulary->sep, vocabulary->pad, vocabulary->mask}) {
    if (id < -1 || id >= count) __builtin_trap();
  }
  std::ignore = tailor::phantom_space_tokens(*vocabulary);
  return 0;
}
