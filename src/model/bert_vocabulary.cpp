#include "model/bert_vocabulary.h"

#include <fmt/format.h>

#include <map>
#include <unordered_map>
#include <unordered_set>

#include "core/files.h"
#include "core/json.h"

namespace tailor {
namespace {

constexpr std::int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;
constexpr std::uint64_t kMaxTokens = 4'000'000;

Error unsupported(const std::filesystem::path& file, std::string_view what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", file.string(), what),
          "only WordPiece tokenizers with BERT's normaliser can be imported; a GGUF of the model can be given instead"};
}

Status place(const std::filesystem::path& file, BertVocabulary& v, std::vector<bool>& taken, std::uint64_t id,
             std::string token, std::int32_t type, std::uint64_t rows) {
  if (id >= rows) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: token '{}' has id {}, but the model has {} embedding rows", file.string(), token, id, rows),
        "the vocabulary belongs to another model"};
  }
  if (taken[id] && v.tokens[id] != token) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: id {} is given to both '{}' and '{}'", file.string(), id, v.tokens[id], token), ""};
  }
  v.tokens[id] = std::move(token);
  v.types[id] = type;
  taken[id] = true;
  return {};
}

Status read_tokenizer_json(const std::filesystem::path& file, BertVocabulary& v, std::vector<bool>& taken,
                           std::uint64_t rows) {
  TAILOR_TRY(const Json json, read_json(file));
  const auto model = json.is_object() ? json.find("model") : json.end();
  if (!json.is_object() || model == json.end() || !model->is_object()) return unsupported(file, "there is no 'model'");
  const auto type = model->value("type", std::string("WordPiece"));
  if (type != "WordPiece") return unsupported(file, fmt::format("the tokenizer is {}, expected WordPiece", type));
  const auto prefix = model->value("continuing_subword_prefix", std::string("##"));
  if (prefix != "##") return unsupported(file, fmt::format("continuing_subword_prefix is '{}', expected '##'", prefix));
  v.settings.max_chars_per_word = model->value("max_input_chars_per_word", 100);
  const auto vocab = model->find("vocab");
  if (vocab == model->end() || !vocab->is_object()) return unsupported(file, "the model has no vocabulary");
  for (const auto& [token, id] : vocab->items()) {
    if (!id.is_number_unsigned()) return unsupported(file, fmt::format("the id of '{}' is not a number", token));
    TAILOR_CHECK(place(file, v, taken, id.get<std::uint64_t>(), token, kNormal, rows));
  }
  if (const auto added = json.find("added_tokens"); added != json.end() && added->is_array()) {
    for (const Json& item : *added) {
      if (!item.is_object() || !item.contains("id") || !item["id"].is_number_unsigned()) {
        return unsupported(file, "an added token has no id");
      }
      TAILOR_CHECK(place(file, v, taken, item["id"].get<std::uint64_t>(), item.value("content", std::string()),
                         item.value("special", false) ? kControl : kUserDefined, rows));
    }
  }
  const auto normalizer = json.find("normalizer");
  if (normalizer == json.end() || !normalizer->is_object() || normalizer->value("type", "") != "BertNormalizer") {
    return unsupported(file, "the normaliser is not BertNormalizer");
  }
  v.settings.lowercase = normalizer->value("lowercase", true);
  const auto accents = normalizer->find("strip_accents");
  v.settings.strip_accents =
      accents != normalizer->end() && accents->is_boolean() ? accents->get<bool>() : v.settings.lowercase;
  v.settings.clean_text = normalizer->value("clean_text", true);
  v.settings.handle_chinese_chars = normalizer->value("handle_chinese_chars", true);
  const auto pre = json.find("pre_tokenizer");
  if (pre == json.end() || !pre->is_object() || pre->value("type", "") != "BertPreTokenizer") {
    return unsupported(file, "the pre-tokenizer is not BertPreTokenizer");
  }
  return {};
}

Status read_vocab_txt(const std::filesystem::path& dir, BertVocabulary& v, std::vector<bool>& taken,
                      std::uint64_t rows) {
  const std::filesystem::path file = dir / "vocab.txt";
  TAILOR_TRY(const std::string text, read_file(file, std::uint64_t{256} << 20));
  std::uint64_t id = 0;
  for (std::size_t at = 0; at < text.size(); ++id) {
    std::size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    std::string token = text.substr(at, end - at);
    if (!token.empty() && token.back() == '\r') token.pop_back();
    TAILOR_CHECK(place(file, v, taken, id, std::move(token), kNormal, rows));
    at = end + 1;
  }
  const std::filesystem::path config = dir / "tokenizer_config.json";
  std::error_code ec;
  if (!std::filesystem::exists(config, ec)) return {};
  TAILOR_TRY(const Json json, read_json(config));
  if (!json.is_object()) return unsupported(config, "not a JSON object");
  v.settings.lowercase = json.value("do_lower_case", true);
  const auto accents = json.find("strip_accents");
  v.settings.strip_accents =
      accents != json.end() && accents->is_boolean() ? accents->get<bool>() : v.settings.lowercase;
  v.settings.handle_chinese_chars = json.value("tokenize_chinese_chars", true);
  return {};
}

/// Names of the special tokens, from special_tokens_map.json where there is one.
std::map<std::string, std::string> special_names(const std::filesystem::path& dir) {
  std::map<std::string, std::string> names = {{"unk_token", "[UNK]"},
                                              {"cls_token", "[CLS]"},
                                              {"sep_token", "[SEP]"},
                                              {"pad_token", "[PAD]"},
                                              {"mask_token", "[MASK]"}};
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const auto json = read_json(dir / file);
    if (!json || !json->is_object()) continue;  // optional files
    for (auto& [key, name] : names) {
      const auto it = json->find(key);
      if (it == json->end()) continue;
      if (it->is_string()) name = it->get<std::string>();
      if (it->is_object() && it->contains("content") && (*it)["content"].is_string()) name = (*it)["content"];
    }
  }
  return names;
}

}  // namespace

Result<BertVocabulary> read_bert_vocabulary(const std::filesystem::path& dir, std::uint64_t rows) try {
  if (rows > kMaxTokens) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: a vocabulary of {} tokens is not credible", dir.string(), rows), ""};
  }
  BertVocabulary v;
  v.tokens.resize(rows);
  v.types.assign(rows, kUnused);
  std::vector<bool> taken(rows, false);
  std::error_code ec;
  const std::filesystem::path json_file = dir / "tokenizer.json";
  if (std::filesystem::exists(json_file, ec)) {
    TAILOR_CHECK(read_tokenizer_json(json_file, v, taken, rows));
  } else if (std::filesystem::exists(dir / "vocab.txt", ec)) {
    TAILOR_CHECK(read_vocab_txt(dir, v, taken, rows));
  } else {
    return Error{ErrorCode::kNotFound, fmt::format("{}: holds neither tokenizer.json nor vocab.txt", dir.string()),
                 "copy the tokenizer files of the model into the directory"};
  }
  const auto retire = [&](std::size_t i) {
    v.tokens[i] = fmt::format("[PAD{}]", i);
    v.types[i] = kUnused;
  };
  std::unordered_map<std::string, std::int32_t> ids;
  for (std::size_t i = 0; i < rows; ++i) {
    if (!taken[i]) retire(i);
    // Of two lines of vocab.txt that say the same transformers uses the last; llama.cpp wants them to differ.
    const auto [it, fresh] = ids.emplace(v.tokens[i], static_cast<std::int32_t>(i));
    if (!fresh) {
      retire(static_cast<std::size_t>(it->second));
      it->second = static_cast<std::int32_t>(i);
    }
  }
  auto names = special_names(dir);
  const auto id_of = [&](const char* key) {
    const auto it = ids.find(names[key]);
    return it == ids.end() ? -1 : it->second;
  };
  v.unk = id_of("unk_token");
  v.cls = id_of("cls_token");
  v.sep = id_of("sep_token");
  v.pad = id_of("pad_token");
  v.mask = id_of("mask_token");
  for (const auto& [id, key] :
       {std::pair{v.unk, "unk_token"}, {v.cls, "cls_token"}, {v.sep, "sep_token"}, {v.pad, "pad_token"}}) {
    if (id < 0) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: the vocabulary has no {} ('{}')", dir.string(), key, names[key]), ""};
    }
  }
  for (const std::int32_t id : {v.unk, v.cls, v.sep, v.pad, v.mask}) {
    if (id >= 0) v.types[static_cast<std::size_t>(id)] = kControl;
  }
  return v;
} catch (const Json::exception& e) {  // a field of another type than its name promises
  return unsupported(dir, fmt::format("the tokenizer files hold a field of the wrong type ({})", e.what()));
}

Result<std::vector<std::string>> phantom_space_tokens(const BertVocabulary& vocabulary) {
  std::vector<std::string> out;
  out.reserve(vocabulary.tokens.size());
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string& token = vocabulary.tokens[i];
    if (vocabulary.types[i] == kControl) {
      out.push_back(token);
    } else if (token.starts_with("##")) {
      out.push_back(token.substr(2));
    } else {
      out.push_back("\xE2\x96\x81" + token);
    }
  }
  std::unordered_set<std::string_view> seen;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!seen.insert(out[i]).second) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("token '{}' (id {}) cannot be told from another in llama.cpp's form of the vocabulary",
                               vocabulary.tokens[i], i),
                   ""};
    }
  }
  return out;
}

}  // namespace tailor
