#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "model/export_hugging_face.h"
#include "model/import_decoder_tokens.h"

namespace tailor {
namespace {

constexpr const char* kBlank = "\xE2\x96\x81";  // SentencePiece's for a blank

/// The vocabulary's metadata, checked for lengths.
struct Vocabulary {
  std::vector<std::string_view> tokens;
  std::vector<std::int64_t> types;
  std::vector<double> scores;
  std::vector<std::string_view> merges;
};

Error cannot(std::string_view what) {
  return {ErrorCode::kInvalidArgument, fmt::format("the tokenizer cannot be written as tokenizer.json: {}", what),
          "copy the tokenizer's files from the model's origin"};
}

Result<Vocabulary> read_vocabulary(const GgufFile& file) {
  Vocabulary v;
  const GgufValue* tokens = file.find("tokenizer.ggml.tokens");
  const GgufValue* types = file.find("tokenizer.ggml.token_type");
  if (tokens == nullptr || !tokens->as_strings()) return cannot("the file has no list of tokens");
  v.tokens = *tokens->as_strings();
  v.types.assign(v.tokens.size(), kNormalToken);
  if (types != nullptr && types->as_integers() && types->count() >= v.tokens.size()) v.types = *types->as_integers();
  if (const GgufValue* scores = file.find("tokenizer.ggml.scores"); scores != nullptr && scores->as_numbers()) {
    v.scores = *scores->as_numbers();
  }
  if (const GgufValue* merges = file.find("tokenizer.ggml.merges"); merges != nullptr && merges->as_strings()) {
    v.merges = *merges->as_strings();
  }
  return v;
}

bool flag(const GgufFile& file, const char* key, bool otherwise) {
  const GgufValue* value = file.find(key);
  return value == nullptr ? otherwise : value->as_bool().value_or(otherwise);
}

/// Text of the token that plays a role; empty: none.
std::string role(const GgufFile& file, const Vocabulary& v, const char* name) {
  const GgufValue* id = file.find(fmt::format("tokenizer.ggml.{}_token_id", name));
  const auto i = id == nullptr ? std::nullopt : id->as_integer();
  if (!i || *i < 0 || static_cast<std::size_t>(*i) >= v.tokens.size()) return "";
  return std::string(v.tokens[static_cast<std::size_t>(*i)]);
}

Json added_tokens(const Vocabulary& v) {
  Json added = Json::array();
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    const bool special = v.types[i] == kControlToken || v.types[i] == kUnknownToken;
    if (!special && v.types[i] != kUserToken) continue;
    added.push_back({{"id", i},
                     {"content", v.tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
  }
  return added;
}

Json vocab_of(const Vocabulary& v) {
  nlohmann::json vocab = nlohmann::json::object();  // a tree: core's Json would look up every key
  Json ordered = Json::object();
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.types[i] != kUnusedToken && v.types[i] != kUserToken) vocab[std::string(v.tokens[i])] = i;
  }
  ordered = Json::parse(vocab.dump());
  return ordered;
}

/// What stands around a text: BOS before and EOS after it, as the file says.
Json post_processor(const GgufFile& file, const Vocabulary& v, bool byte_level) {
  const std::string bos = flag(file, "tokenizer.ggml.add_bos_token", !byte_level) ? role(file, v, "bos") : "";
  const std::string eos = flag(file, "tokenizer.ggml.add_eos_token", false) ? role(file, v, "eos") : "";
  if (bos.empty() && eos.empty()) {
    return byte_level ? Json{{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}} : Json();
  }
  Json specials = Json::object();
  const auto special = [&](const std::string& text, const char* name, int type) {
    const GgufValue* id = file.find(fmt::format("tokenizer.ggml.{}_token_id", name));
    specials[text] = {{"id", text}, {"ids", {*id->as_integer()}}, {"tokens", {text}}};
    return Json{{"SpecialToken", {{"id", text}, {"type_id", type}}}};
  };
  Json single = Json::array(), pair = Json::array();
  const std::pair<const char*, int> parts[] = {{"A", 0}, {"B", 1}};
  for (const auto& [name, type] : parts) {
    if (!bos.empty()) pair.push_back(special(bos, "bos", type));
    pair.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    if (!eos.empty()) pair.push_back(special(eos, "eos", type));
    if (type == 0) single = pair;
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", specials}};
}

Result<Json> byte_level(const GgufFile& file, const Vocabulary& v) {
  TAILOR_TRY(const std::string pre, file.string("tokenizer.ggml.pre"));
  const auto step = pre_tokenizer_json(pre, flag(file, "tailor.tokenizer.add_prefix_space", false));
  if (!step) return cannot(fmt::format("the pre-tokenizer '{}' has no known counterpart", pre));
  Json merges = Json::array();
  for (const std::string_view merge : v.merges) {
    const std::size_t blank = merge.find(' ', 1);
    if (blank == std::string_view::npos) return cannot("a merge does not name two tokens");
    merges.push_back({std::string(merge.substr(0, blank)), std::string(merge.substr(blank + 1))});
  }
  return Json{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added_tokens(v)},
      {"normalizer",
       flag(file, "tailor.tokenizer.nfc", pre == "qwen2" || pre == "modern-bert") ? Json{{"type", "NFC"}} : Json()},
      {"pre_tokenizer", Json::parse(step->dump())},
      {"post_processor", post_processor(file, v, true)},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", ignores_merges(pre)},
        {"vocab", vocab_of(v)},
        {"merges", std::move(merges)}}}};
}

/// All pairs of pieces that make a piece, best piece first: what merging by score does.
Json merges_of(const Vocabulary& v) {
  std::unordered_map<std::string_view, std::size_t> ids;
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.types[i] != kNormalToken) continue;
    ids[v.tokens[i]] = i;
    order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return v.scores[a] > v.scores[b]; });
  Json merges = Json::array();
  for (const std::size_t i : order) {
    const std::string_view text = v.tokens[i];
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      if ((static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) continue;  // inside a character
      if (!ids.contains(text.substr(0, cut)) || !ids.contains(text.substr(cut))) continue;
      merges.push_back({std::string(text.substr(0, cut)), std::string(text.substr(cut))});
    }
  }
  return merges;
}

Result<Json> pieces(const GgufFile& file, const Vocabulary& v) {
  if (v.scores.size() < v.tokens.size()) return cannot("the pieces have no scores");
  const bool leading = flag(file, "tokenizer.ggml.add_space_prefix", true);
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kBlank}};
  Json normalizer = replace, pre;
  if (flag(file, "tailor.tokenizer.metaspace", false)) {
    normalizer = nullptr;
    pre = {{"type", "Metaspace"}, {"replacement", kBlank}, {"prepend_scheme", "first"}, {"split", false}};
  } else if (leading) {
    normalizer = {{"type", "Sequence"},
                  {"normalizers", Json::array({Json{{"type", "Prepend"}, {"prepend", kBlank}}, replace})}};
  }
  Json decoders = Json::array({Json{{"type", "Replace"}, {"pattern", {{"String", kBlank}}}, {"content", " "}},
                               Json{{"type", "ByteFallback"}}, Json{{"type", "Fuse"}}});
  if (leading) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  const std::string unk = role(file, v, "unknown");
  return Json{{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens", added_tokens(v)},
              {"normalizer", std::move(normalizer)},
              {"pre_tokenizer", std::move(pre)},
              {"post_processor", post_processor(file, v, false)},
              {"decoder", {{"type", "Sequence"}, {"decoders", std::move(decoders)}}},
              {"model",
               {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", unk.empty() ? Json() : Json(unk)},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", true},
                {"byte_fallback", true},
                {"ignore_merges", false},
                {"vocab", vocab_of(v)},
                {"merges", merges_of(v)}}}};
}

}  // namespace

Result<TokenizerFiles> tokenizer_files(const GgufFile& file) try {
  TAILOR_TRY(const std::string model, file.string("tokenizer.ggml.model"));
  TAILOR_TRY(const Vocabulary v, read_vocabulary(file));
  TokenizerFiles files;
  if (model == "gpt2") {
    TAILOR_TRY(files.tokenizer, byte_level(file, v));
  } else if (model == "llama") {
    TAILOR_TRY(files.tokenizer, pieces(file, v));
  } else {
    return cannot(fmt::format("its kind is '{}'", model));
  }
  files.settings = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const std::pair<const char*, const char*> roles[] = {{"bos", "bos"},     {"eos", "eos"},       {"unknown", "unk"},
                                                       {"padding", "pad"}, {"seperator", "sep"}, {"mask", "mask"}};
  for (const auto& [name, key] : roles) {
    if (const std::string text = role(file, v, name); !text.empty())
      files.settings[fmt::format("{}_token", key)] = text;
  }
  if (const GgufValue* chat = file.find("tokenizer.chat_template"); chat != nullptr && chat->as_string()) {
    files.settings["chat_template"] = *chat->as_string();
  }
  const GgufValue* others = file.find("tokenizer.chat_templates");
  if (const auto names = others == nullptr ? std::nullopt : others->as_strings(); names && !names->empty()) {
    Json all = Json::array();
    if (files.settings.contains("chat_template"))
      all.push_back({{"name", "default"}, {"template", files.settings["chat_template"]}});
    for (const std::string_view name : *names) {
      const GgufValue* source = file.find(fmt::format("tokenizer.chat_template.{}", name));
      if (source != nullptr && source->as_string())
        all.push_back({{"name", std::string(name)}, {"template", std::string(*source->as_string())}});
    }
    files.settings["chat_template"] = std::move(all);
  }
  return files;
} catch (const nlohmann::json::exception& e) {  // tokens that are no UTF-8
  return cannot(e.what());
}

}  // namespace tailor
