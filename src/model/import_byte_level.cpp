#include "model/import_byte_level.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "core/files.h"
#include "model/token_table.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMergesFile = "merges.txt";

using Json = TokenJson;

Error unsupported(const fs::path& file, std::string_view what) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}: {}; of RoBERTa and ModernBERT models Tailor imports those with a byte-level BPE tokenizer",
                      file.string(), what),
          "give a GGUF file of the model instead"};
}

Status check_model(const fs::path& file, const Json& model) {
  const bool pairs = model.contains("merges");
  const bool list = model.contains("vocab") && model["vocab"].is_array();  // of [token, score]
  const auto type = model.value("type", std::string(pairs ? "BPE" : list ? "Unigram" : "WordPiece"));
  if (type != "BPE") {
    return unsupported(file, fmt::format("the tokenizer is {}", type == "Unigram" ? "Unigram (SentencePiece)" : type));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto it = model.find(key);
    if (it != model.end() && !it->is_null() && *it != "") return unsupported(file, fmt::format("{} is set", key));
  }
  for (const char* key : {"byte_fallback", "ignore_merges"}) {
    if (model.value(key, Json(false)) == true) return unsupported(file, fmt::format("{} is true", key));
  }
  return {};
}

/// The names of the tokens put before and after a text.
struct Frame {
  std::string cls, sep;
};

std::optional<Frame> read_frame(const Json& processor) {
  if (!processor.is_object()) return std::nullopt;
  const auto type = processor.value("type", std::string());
  if (type == "Sequence" && processor.contains("processors") && processor["processors"].is_array()) {
    std::optional<Frame> found;
    for (const Json& step : processor["processors"]) {
      if (auto frame = read_frame(step)) found = std::move(frame);
    }
    return found;
  }
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    return Frame{processor.at("cls").at(0).get<std::string>(), processor.at("sep").at(0).get<std::string>()};
  }
  if (type != "TemplateProcessing") return std::nullopt;
  const Json& single = processor.at("single");
  if (single.size() != 3 || !single[0].contains("SpecialToken") || !single[1].contains("Sequence") ||
      !single[2].contains("SpecialToken")) {
    return std::nullopt;
  }
  return Frame{single[0]["SpecialToken"].at("id").get<std::string>(),
               single[2]["SpecialToken"].at("id").get<std::string>()};
}

Status place_added(const fs::path& file, TokenTable& table, const Json& id, const Json& token) {
  const bool special = token.value("special", false);
  const auto text = token.value("content", std::string());
  for (const char* key : {"lstrip", "rstrip", "single_word"}) {
    if (!special && token.value(key, false)) {
      return unsupported(file, fmt::format("the added token '{}' has {} set", text, key));
    }
  }
  return table.place(file, id, text, special ? kControlToken : kUserToken);
}

Result<Frame> read_tokenizer_json(const fs::path& file, TokenTable& table, ByteLevelVocabulary& v) {
  TAILOR_TRY(const Json json, read_token_json(file));
  if (!json.is_object() || !json.contains("model") || !json["model"].is_object()) {
    return unsupported(file, "there is no 'model'");
  }
  const Json& model = json["model"];
  TAILOR_CHECK(check_model(file, model));
  if (const auto it = json.find("normalizer"); it != json.end() && !it->is_null()) {
    if (!it->is_object() || it->value("type", std::string()) != "NFC")
      return unsupported(file, "it has a normaliser other than NFC");
    v.composed = true;
  }
  const Json pre = json.value("pre_tokenizer", Json());
  const auto kind = pre.is_object() ? pre.value("type", std::string("none")) : std::string("none");
  if (kind != "ByteLevel") return unsupported(file, fmt::format("the pre-tokenizer is {}", kind));
  if (!pre.value("use_regex", true)) return unsupported(file, "the pre-tokenizer does not split with GPT-2's pattern");
  v.add_prefix_space = pre.value("add_prefix_space", true);  // the library's own, where the key is absent
  if (!model.contains("vocab") || !model["vocab"].is_object()) return unsupported(file, "the model has no vocabulary");
  for (const auto& [token, id] : model["vocab"].items()) TAILOR_CHECK(table.place(file, id, token, kNormalToken));
  for (const Json& token : json.value("added_tokens", Json::array())) {
    TAILOR_CHECK(place_added(file, table, token.value("id", Json()), token));
  }
  for (const Json& merge : model.value("merges", Json::array())) {
    TAILOR_CHECK(add_merge(file, table, merge, v.merges));
  }
  auto frame = read_frame(json.value("post_processor", Json()));
  if (!frame) return unsupported(file, "the post-processor does not put one token before and one after a text");
  return *std::move(frame);
}

/// Special tokens by their key, RoBERTa's own names where the directory gives none.
std::map<std::string, std::string> special_names(const fs::path& dir) {
  std::map<std::string, std::string> names = {{"bos_token", "<s>"},    {"eos_token", "</s>"},  {"cls_token", "<s>"},
                                              {"sep_token", "</s>"},   {"unk_token", "<unk>"}, {"pad_token", "<pad>"},
                                              {"mask_token", "<mask>"}};
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const auto json = read_token_json(dir / file);
    if (!json.has_value() || !json->is_object()) continue;  // optional files
    for (auto& [key, name] : names) {
      const Json value = json->value(key, Json());
      if (value.is_string()) name = value.get<std::string>();
      if (value.is_object()) name = value.value("content", name);
    }
  }
  return names;
}

Result<Frame> read_vocab_and_merges(const fs::path& dir, std::map<std::string, std::string> names, TokenTable& table,
                                    ByteLevelVocabulary& v) {
  const fs::path vocab_file = dir / "vocab.json", merges_file = dir / kMergesFile;
  TAILOR_TRY(const Json vocab, read_token_json(vocab_file));
  if (!vocab.is_object()) return unsupported(vocab_file, "not a JSON object");
  for (const auto& [token, id] : vocab.items()) TAILOR_CHECK(table.place(vocab_file, id, token, kNormalToken));
  const fs::path config_file = dir / "tokenizer_config.json";
  std::error_code ec;
  if (fs::exists(config_file, ec)) {
    TAILOR_TRY(const Json config, read_token_json(config_file));
    v.add_prefix_space = config.value("add_prefix_space", false);
    const Json added = config.value("added_tokens_decoder", Json::object());
    for (const auto& [id, token] : added.items()) {
      TAILOR_CHECK(place_added(config_file, table, Json::parse(id), token));
    }
  }
  if (const fs::path added = dir / "added_tokens.json"; fs::exists(added, ec)) {
    TAILOR_TRY(const Json tokens, read_token_json(added));
    for (const auto& [token, id] : tokens.items()) {
      if (table.find(token) < 0) TAILOR_CHECK(table.place(added, id, token, kUserToken));
    }
  }
  for (const auto& [key, name] : names) {
    if (const std::int32_t id = table.find(name); id >= 0) v.types[static_cast<std::size_t>(id)] = kControlToken;
  }
  TAILOR_TRY(const std::string text, read_file(merges_file, std::uint64_t{256} << 20));
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) TAILOR_CHECK(add_merge(merges_file, table, line, v.merges));
  }
  return Frame{names["cls_token"], names["sep_token"]};
}

/// The file that shows which tokenizer a directory without tokenizer.json and vocab.json has.
Error no_byte_level(const fs::path& dir) {
  std::error_code ec;
  for (const char* name : {"sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "spm.model"}) {
    if (fs::exists(dir / name, ec)) return unsupported(dir / name, "the tokenizer is SentencePiece");
  }
  if (fs::exists(dir / "vocab.txt", ec)) return unsupported(dir / "vocab.txt", "the tokenizer is WordPiece");
  return {ErrorCode::kNotFound,
          fmt::format("{}: holds neither tokenizer.json nor vocab.json and merges.txt", dir.string()),
          "copy the tokenizer files of the model into the directory"};
}

}  // namespace

Result<ByteLevelVocabulary> read_byte_level_vocabulary(const fs::path& dir, std::int64_t rows) try {
  ByteLevelVocabulary v;
  TokenTable table(v.tokens, v.types, rows);
  auto names = special_names(dir);
  Frame frame;
  std::error_code ec;
  fs::path file = dir / "tokenizer.json";
  if (fs::exists(file, ec)) {
    TAILOR_TRY(frame, read_tokenizer_json(file, table, v));
  } else if (fs::exists(dir / "vocab.json", ec) && fs::exists(dir / kMergesFile, ec)) {
    file = dir / "vocab.json";
    TAILOR_TRY(frame, read_vocab_and_merges(dir, names, table, v));
  } else {
    return no_byte_level(dir);
  }
  // The tokenizers library drops bytes without a token before it merges, llama.cpp after.
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    if (table.find(byte_letter(byte)) < 0) {
      return unsupported(file, fmt::format("the vocabulary lacks a token for the byte 0x{:02X}", byte));
    }
  }
  v.cls = table.find(frame.cls);
  v.sep = table.find(frame.sep);
  v.unk = table.find(names["unk_token"]);
  v.mask = table.find(names["mask_token"]);
  for (const auto& [id, name] : {std::pair{v.cls, frame.cls}, {v.sep, frame.sep}}) {
    if (id < 0) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: the vocabulary has no '{}'", file.string(), name), ""};
    }
    v.types[static_cast<std::size_t>(id)] = kControlToken;
  }
  table.fill_up();
  return v;
} catch (const Json::exception& e) {  // a field of another type than its name promises
  return unsupported(dir, fmt::format("the tokenizer files hold a field of the wrong type ({})", e.what()));
}

void set_vocabulary(GgufWriter& writer, const ByteLevelVocabulary& v, std::int64_t padding, const char* pre) {
  const auto id = [&](const char* name, std::int64_t value) {
    if (value >= 0) {
      writer.set(fmt::format("tokenizer.ggml.{}_token_id", name), GgufValue::u32(static_cast<std::uint32_t>(value)));
    }
  };
  writer.set("tokenizer.ggml.model", GgufValue::string("gpt2"));
  writer.set("tokenizer.ggml.pre", GgufValue::string(pre));
  writer.set("tokenizer.ggml.tokens", GgufValue::strings(v.tokens));
  writer.set("tokenizer.ggml.token_type", GgufValue::i32s(v.types));
  writer.set("tokenizer.ggml.merges", GgufValue::strings(v.merges));
  id("bos", v.cls);
  id("eos", v.sep);
  id("cls", v.cls);
  id("seperator", v.sep);  // the format's own spelling
  id("unknown", v.unk);
  id("padding", padding);
  id("mask", v.mask);
  writer.set("tokenizer.ggml.add_bos_token", GgufValue::boolean(true));
  writer.set("tokenizer.ggml.add_eos_token", GgufValue::boolean(true));
  writer.set("tailor.tokenizer.add_prefix_space", GgufValue::boolean(v.add_prefix_space));
  if (v.composed) writer.set("tailor.tokenizer.nfc", GgufValue::boolean(true));
}

}  // namespace tailor
