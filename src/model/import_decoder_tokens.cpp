#include "model/import_decoder_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "core/files.h"
#include "model/sentencepiece_model.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using Json = TokenJson;

constexpr std::string_view kBlank = "\xE2\x96\x81";                                    // SentencePiece's for a blank
constexpr const char* kToolTemplateFile = "additional_chat_templates/tool_use.jinja";  // as transformers writes it
constexpr float kAddedScore = -1000, kUnusedScore = -10'000;                           // as llama.cpp's converter

Error unsupported(const fs::path& file, std::string_view what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", file.string(), what),
          "Tailor imports decoders with byte-level BPE or SentencePiece BPE tokenizers; give a GGUF file of the model "
          "instead"};
}

std::string with_blanks(std::string text) {
  for (std::size_t at = text.find(kBlank); at != std::string::npos; at = text.find(kBlank, at + 1)) {
    text.replace(at, kBlank.size(), " ");
  }
  return text;
}

/// Added tokens that are control tokens in all but their flag, by the rules of llama.cpp's converter.
bool looks_special(std::string_view text) {
  const auto framed = [&](std::string_view a, std::string_view b) {
    return text.size() >= a.size() + b.size() && text.starts_with(a) && text.ends_with(b);
  };
  return text == "<pad>" || text == "<mask>" || text == "<2mass>" || text == "[@BOS@]" || framed("<|", "|>") ||
         framed("<\xEF\xBD\x9C", "\xEF\xBD\x9C>") || framed("<unused", ">");
}

/// The tokenizer's files, each null where absent.
struct Files {
  fs::path dir;
  Json tokenizer, settings, specials, added;
  bool has_pieces = false;  // tokenizer.model
};

Result<Json> read_optional(const fs::path& file) {
  std::error_code ec;
  if (!fs::exists(file, ec)) return Json();
  TAILOR_TRY(Json json, read_token_json(file));
  if (!json.is_object()) return unsupported(file, "not a JSON object");
  return json;
}

Result<Files> read_files(const fs::path& dir) {
  Files f;
  f.dir = dir;
  TAILOR_TRY(f.tokenizer, read_optional(dir / "tokenizer.json"));
  TAILOR_TRY(f.settings, read_optional(dir / "tokenizer_config.json"));
  TAILOR_TRY(f.specials, read_optional(dir / "special_tokens_map.json"));
  TAILOR_TRY(f.added, read_optional(dir / "added_tokens.json"));
  std::error_code ec;
  f.has_pieces = fs::exists(dir / "tokenizer.model", ec);
  return f;
}

Json part_of(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && it != object.end() ? *it : Json();
}

Status place_added(const fs::path& file, const Json& id, const Json& token, DecoderVocabulary& v, TokenTable& table) {
  std::string text = token.value("content", std::string());
  const bool control = token.value("special", false) || looks_special(text);
  if (!control && v.model == "llama") text = with_blanks(std::move(text));
  TAILOR_CHECK(table.place(file, id, text, control ? kControlToken : kUserToken, true));
  if (!v.scores.empty()) v.scores[id.get<std::size_t>()] = kAddedScore;
  return {};
}

/// Added tokens from all files that list them; they replace pieces of the same id.
Status place_added_tokens(const Files& f, DecoderVocabulary& v, TokenTable& table) {
  if (f.added.is_object()) {
    for (const auto& [text, id] : f.added.items()) {
      TAILOR_CHECK(place_added(f.dir / "added_tokens.json", id, Json{{"content", text}}, v, table));
    }
  }
  const Json decoder = part_of(f.settings, "added_tokens_decoder");
  if (decoder.is_object()) {
    for (const auto& [id, token] : decoder.items()) {
      TAILOR_CHECK(place_added(f.dir / "tokenizer_config.json", Json::parse(id), token, v, table));
    }
  }
  const Json added = part_of(f.tokenizer, "added_tokens");
  if (added.is_array()) {
    for (const Json& token : added) {
      TAILOR_CHECK(place_added(f.dir / "tokenizer.json", part_of(token, "id"), token, v, table));
    }
  }
  return {};
}

/// What a post-processor puts before and after a text.
struct Frame {
  bool known = false;
  std::string first, last;
};
Status read_frame(const fs::path& file, const Json& processor, Frame& frame) {
  if (!processor.is_object()) return {};
  const auto type = processor.value("type", std::string());
  if (type == "Sequence") {
    for (const Json& step : processor.value("processors", Json::array())) TAILOR_CHECK(read_frame(file, step, frame));
    return {};
  }
  frame.known = true;
  if (type == "ByteLevel") return {};
  if (type != "TemplateProcessing") return unsupported(file, fmt::format("the post-processor is {}", type));
  const Json& single = processor.at("single");
  bool after = false;
  for (const Json& step : single) {
    if (step.contains("Sequence")) {
      after = true;
      continue;
    }
    std::string& side = after ? frame.last : frame.first;
    if (!side.empty()) return unsupported(file, "the post-processor puts two tokens on one side of a text");
    side = step.at("SpecialToken").at("id").get<std::string>();
  }
  return {};
}

/// The token that plays a role: by the tokenizer's files, else by config.json.
std::int32_t role(const Files& f, const Json& config, const char* name, const TokenTable& table) {
  const std::string key = fmt::format("{}_token", name);
  for (const Json* source : {&f.settings, &f.specials}) {
    Json value = part_of(*source, key.c_str());
    if (value.is_object()) value = part_of(value, "content");
    if (!value.is_string()) continue;
    if (const std::int32_t id = table.find(value.get<std::string>()); id >= 0) return id;
  }
  Json id = part_of(config, (key + "_id").c_str());
  if (id.is_array() && !id.empty()) id = id[0];
  return id.is_number_integer() ? id.get<std::int32_t>() : -1;
}

Status set_roles(const Files& f, const Json& config, const TokenTable& table, DecoderVocabulary& v) {
  const std::pair<const char*, std::int32_t*> roles[] = {{"bos", &v.bos},  {"eos", &v.eos}, {"unk", &v.unk},
                                                         {"sep", &v.sep},  {"pad", &v.pad}, {"cls", &v.cls},
                                                         {"mask", &v.mask}};
  for (const auto& [name, id] : roles) {
    const std::int32_t found = role(f, config, name, table);
    if (found < 0) continue;  // a SentencePiece model may have said so already
    if (static_cast<std::size_t>(found) >= v.tokens.size()) {
      return unsupported(f.dir / "config.json", fmt::format("'{}_token_id' is {}, beyond the vocabulary", name, found));
    }
    *id = found;
  }
  const fs::path file = f.dir / "tokenizer.json";
  Frame frame;
  TAILOR_CHECK(read_frame(file, part_of(f.tokenizer, "post_processor"), frame));
  const auto wanted = [&](const char* key, bool otherwise) {
    const Json value = part_of(f.settings, key);
    return value.is_boolean() ? value.get<bool>() : otherwise;
  };
  // LlamaTokenizer puts <s> before a text unless told otherwise.
  v.add_bos = wanted("add_bos_token", !frame.known && v.model == "llama" && v.bos >= 0) && v.bos >= 0;
  v.add_eos = wanted("add_eos_token", false) && v.eos >= 0;
  if (!frame.known) return {};
  for (const auto& [text, id, add] :
       {std::tuple{&frame.first, &v.bos, &v.add_bos}, {&frame.last, &v.eos, &v.add_eos}}) {
    *add = !text->empty();
    if (text->empty()) continue;
    const std::int32_t token = table.find(*text);
    if (token < 0) return unsupported(file, fmt::format("the vocabulary has no '{}'", *text));
    if (*id < 0) *id = token;
    if (*id != token) {
      return unsupported(
          file, fmt::format("the post-processor puts '{}' around a text, which is neither BOS nor EOS", *text));
    }
  }
  return {};
}

/// As llama.cpp's converter makes a key of it.
std::string plain_name(std::string name) {
  for (char& c : name) {
    const bool kept = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!kept) c = '_';
  }
  return name;
}

Status set_chat_template(const Files& f, DecoderVocabulary& v) {
  Json value = part_of(f.settings, "chat_template");
  if (value.is_null()) {
    std::error_code ec;
    if (fs::exists(f.dir / "chat_template.jinja", ec)) {
      TAILOR_TRY(v.chat_template, read_file(f.dir / "chat_template.jinja", 16 << 20));
    } else {
      TAILOR_TRY(const Json other, read_optional(f.dir / "chat_template.json"));
      value = part_of(other, "chat_template");
    }
  }
  if (value.is_string()) v.chat_template = value.get<std::string>();
  if (value.is_array()) {  // several by name
    for (const Json& one : value) {
      const Json name = part_of(one, "name"), source = part_of(one, "template");
      if (!name.is_string() || !source.is_string()) continue;
      (name == "default" ? v.chat_template : v.named_templates[plain_name(name.get<std::string>())]) =
          source.get<std::string>();
    }
  }
  const fs::path tools = f.dir / kToolTemplateFile;
  std::error_code ec;
  if (fs::exists(tools, ec)) {
    TAILOR_TRY(v.named_templates["tool_use"], read_file(tools, 16 << 20));
  }
  return {};
}

Status read_byte_level(const Files& f, const Json& model, TokenTable& table, DecoderVocabulary& v) {
  const fs::path file = f.dir / "tokenizer.json";
  v.model = "gpt2";
  const Json normalizer = part_of(f.tokenizer, "normalizer");
  if (!normalizer.is_null()) {
    const Json steps = part_of(normalizer, "normalizers");
    const bool none = steps.is_array() && steps.empty();
    if (!none && part_of(normalizer, "type") != "NFC") {
      return unsupported(file, fmt::format("the normaliser is {}", normalizer.dump().substr(0, 120)));
    }
    v.composed = !none;
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json value = part_of(model, key);
    if (!value.is_null() && value != "") return unsupported(file, fmt::format("{} is set", key));
  }
  auto pre = recognize_pre_tokenizer(part_of(f.tokenizer, "pre_tokenizer"), part_of(model, "ignore_merges") == true);
  if (!pre) return unsupported(file, pre.error().message);
  v.pre = pre->name;
  v.leading_space = pre->leading_space;
  const Json vocab = part_of(model, "vocab");
  if (!vocab.is_object()) return unsupported(file, "the model has no vocabulary");
  for (const auto& [token, id] : vocab.items()) {
    TAILOR_CHECK(table.place(file, id, token, kNormalToken));
  }
  for (const Json& merge : part_of(model, "merges")) TAILOR_CHECK(add_merge(file, table, merge, v.merges));
  return place_added_tokens(f, v, table);
}

/// Whether a text is given a leading blank, from tokenizer.json of a SentencePiece model in either generation.
Status set_leading_space(const fs::path& file, const Json& tokenizer, DecoderVocabulary& v) {
  bool prepends = false, replaces = false;
  std::vector<Json> steps;
  const Json normalizer = part_of(tokenizer, "normalizer");
  if (part_of(normalizer, "type") == "Sequence") {
    for (const Json& step : part_of(normalizer, "normalizers")) steps.push_back(step);
  } else if (!normalizer.is_null()) {
    steps.push_back(normalizer);
  }
  for (const Json& step : steps) {
    const Json type = part_of(step, "type");
    if (type == "Prepend" && part_of(step, "prepend") == kBlank) {
      prepends = true;
    } else if (type == "Replace" && part_of(part_of(step, "pattern"), "String") == " " &&
               part_of(step, "content") == kBlank) {
      replaces = true;
    } else {
      return unsupported(file, fmt::format("the normaliser is {}", normalizer.dump().substr(0, 120)));
    }
  }
  v.leading_space = prepends;
  const Json pre = part_of(tokenizer, "pre_tokenizer");
  if (pre.is_null()) {
    if (!replaces) return unsupported(file, "neither normaliser nor pre-tokenizer marks blanks");
    return {};
  }
  if (part_of(pre, "type") == "Metaspace" && steps.empty()) {
    if (part_of(pre, "split") != false) return unsupported(file, "the pre-tokenizer splits at blanks");
    const Json scheme = part_of(pre, "prepend_scheme");
    v.leading_space = v.metaspace = scheme.is_null() ? part_of(pre, "add_prefix_space") != false : scheme != "never";
    return {};
  }
  // Gemma splits at blanks, of which its normaliser has left none.
  if (part_of(pre, "type") == "Split" && part_of(part_of(pre, "pattern"), "String") == " " && replaces) return {};
  return unsupported(file, fmt::format("the pre-tokenizer is {}", pre.dump().substr(0, 120)));
}

/// Scores under which SentencePiece merges in the order of the list. It scores the merged piece, not the pair: so the
/// list must hold the pairs of a piece together, and all its pairs.
Status set_scores(const fs::path& file, const Json& merges, const TokenTable& table, DecoderVocabulary& v) {
  if (!merges.is_array() || merges.empty()) return unsupported(file, "the model has no merges");
  std::unordered_map<std::int32_t, std::int32_t> pairs;  // piece -> pairs seen
  std::int32_t last = -1, rank = 0;
  for (const Json& merge : merges) {
    TAILOR_TRY(const auto sides, read_merge(file, table, merge));
    const std::int32_t piece = table.find(sides.first + sides.second);
    if (piece != last) {
      if (pairs.contains(piece)) {
        return unsupported(file, fmt::format("its merges to '{}' do not stand together, which scores cannot express",
                                             sides.first + sides.second));
      }
      v.scores[static_cast<std::size_t>(piece)] = static_cast<float>(-(++rank));
      last = piece;
    }
    ++pairs[piece];
  }
  // A normal piece without merges must have no pairs either: scores would merge them.
  for (std::size_t piece = 0; piece < v.tokens.size(); ++piece) {
    if (v.types[piece] != kNormalToken) continue;
    const std::string& text = v.tokens[piece];
    std::int32_t possible = 0;
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      if ((static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) continue;  // inside a character
      possible += table.find(text.substr(0, cut)) >= 0 && table.find(text.substr(cut)) >= 0 ? 1 : 0;
    }
    const auto seen = pairs.find(static_cast<std::int32_t>(piece));
    const std::int32_t count = seen == pairs.end() ? 0 : seen->second;
    if (possible != count) {
      return unsupported(
          file, fmt::format("'{}' has {} pairs and {} merges, which scores cannot express", text, possible, count));
    }
  }
  return {};
}

bool is_byte_token(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with(">");
}

Status read_pieces_json(const Files& f, const Json& model, TokenTable& table, DecoderVocabulary& v) {
  const fs::path file = f.dir / "tokenizer.json";
  const Json vocab = part_of(model, "vocab"), unk = part_of(model, "unk_token");
  if (!vocab.is_object()) return unsupported(file, "the model has no vocabulary");
  for (const auto& [token, id] : vocab.items()) {
    const std::int32_t type = is_byte_token(token) ? kByteToken : unk == token ? kUnknownToken : kNormalToken;
    TAILOR_CHECK(table.place(file, id, token, type));
    v.scores[id.get<std::size_t>()] = 0;
    if (type == kUnknownToken) v.unk = id.get<std::int32_t>();
  }
  TAILOR_CHECK(place_added_tokens(f, v, table));  // these are no pieces of a text
  return set_scores(file, part_of(model, "merges"), table, v);
}

Status read_pieces_model(const Files& f, TokenTable& table, DecoderVocabulary& v) {
  const fs::path file = f.dir / "tokenizer.model";
  TAILOR_TRY(const SentencePieceModel model, read_sentencepiece_model(file));
  if (!model.is_bpe) return unsupported(file, "the model is not BPE (unigram, words or characters)");
  if (!model.byte_fallback) return unsupported(file, "the model has no byte fallback");
  if (model.normalizes) return unsupported(file, "the model replaces characters");
  if (model.remove_extra_whitespaces) return unsupported(file, "the model removes extra blanks");
  v.leading_space = model.add_dummy_prefix;
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    const std::string text = piece.type == kUserToken ? with_blanks(piece.text) : piece.text;
    TAILOR_CHECK(table.place(file, i, text, piece.type));
    v.scores[i] = piece.score;
  }
  v.unk = model.unk;
  v.bos = model.bos;
  v.eos = model.eos;
  v.pad = model.pad;
  return place_added_tokens(f, v, table);
}

}  // namespace

Result<DecoderVocabulary> read_decoder_vocabulary(const fs::path& dir, std::int64_t rows, const Json& config) try {
  TAILOR_TRY(const Files f, read_files(dir));
  DecoderVocabulary v;
  TokenTable table(v.tokens, v.types, rows);
  const Json model = part_of(f.tokenizer, "model");
  const bool byte_level = model.is_object() && part_of(model, "byte_fallback") != true;
  if (model.is_object() && byte_level) {
    const Json type = part_of(model, "type");
    if (!type.is_null() && type != "BPE") return unsupported(dir / "tokenizer.json", "the tokenizer is " + type.dump());
    TAILOR_CHECK(read_byte_level(f, model, table, v));
  } else if (f.has_pieces || model.is_object()) {
    v.model = "llama";
    v.scores.assign(v.tokens.size(), kUnusedScore);
    TAILOR_CHECK(f.has_pieces ? read_pieces_model(f, table, v) : read_pieces_json(f, model, table, v));
    if (model.is_object()) TAILOR_CHECK(set_leading_space(dir / "tokenizer.json", f.tokenizer, v));
  } else {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: holds neither tokenizer.json nor tokenizer.model", dir.string()),
                 "copy the tokenizer files of the model into the directory"};
  }
  TAILOR_CHECK(set_roles(f, config, table, v));
  // The unknown piece is listed among the added tokens as well.
  if (v.model == "llama" && v.unk >= 0) v.types[static_cast<std::size_t>(v.unk)] = kUnknownToken;
  TAILOR_CHECK(set_chat_template(f, v));
  table.fill_up();
  return v;
} catch (const Json::exception& e) {  // a field of another type than its name promises
  return unsupported(dir, fmt::format("the tokenizer files hold a field of the wrong type ({})", e.what()));
}

void set_vocabulary(GgufWriter& writer, const DecoderVocabulary& v) {
  const auto id = [&](const char* name, std::int32_t value) {
    if (value >= 0) {
      writer.set(fmt::format("tokenizer.ggml.{}_token_id", name), GgufValue::u32(static_cast<std::uint32_t>(value)));
    }
  };
  writer.set("tokenizer.ggml.model", GgufValue::string(v.model));
  writer.set("tokenizer.ggml.pre", GgufValue::string(v.pre));
  writer.set("tokenizer.ggml.tokens", GgufValue::strings(v.tokens));
  if (!v.scores.empty()) writer.set("tokenizer.ggml.scores", GgufValue::f32s(v.scores));
  writer.set("tokenizer.ggml.token_type", GgufValue::i32s(v.types));
  if (v.model == "gpt2") writer.set("tokenizer.ggml.merges", GgufValue::strings(v.merges));
  id("bos", v.bos);
  id("eos", v.eos);
  id("unknown", v.unk);
  id("seperator", v.sep);  // the format's own spelling
  id("padding", v.pad);
  id("cls", v.cls);
  id("mask", v.mask);
  writer.set("tokenizer.ggml.add_bos_token", GgufValue::boolean(v.add_bos));
  writer.set("tokenizer.ggml.add_eos_token", GgufValue::boolean(v.add_eos));
  if (v.model == "llama") {
    writer.set("tokenizer.ggml.add_space_prefix", GgufValue::boolean(v.leading_space));
    if (v.metaspace) writer.set("tailor.tokenizer.metaspace", GgufValue::boolean(true));
  } else if (v.leading_space) {
    writer.set("tailor.tokenizer.add_prefix_space", GgufValue::boolean(true));
  }
  if (v.composed) writer.set("tailor.tokenizer.nfc", GgufValue::boolean(true));
  if (!v.chat_template.empty()) writer.set("tokenizer.chat_template", GgufValue::string(v.chat_template));
  std::vector<std::string> names;
  for (const auto& [name, source] : v.named_templates) {
    writer.set("tokenizer.chat_template." + name, GgufValue::string(source));
    names.push_back(name);
  }
  if (!names.empty()) writer.set("tokenizer.chat_templates", GgufValue::strings(names));
}

}  // namespace tailor
