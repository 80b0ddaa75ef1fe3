#include "model/import.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "model/bert_vocabulary.h"
#include "model/file_hash.h"
#include "model/gguf_writer.h"
#include "model/model_weights.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kImporterVersion = "1";  // part of the cache key: raise it when the output changes
constexpr std::array<std::string_view, 4> kBertClasses = {"BertModel", "BertForMaskedLM",
                                                          "BertForSequenceClassification", "BertForPreTraining"};

Error unsupported(const fs::path& file, std::string_view what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", file.string(), what),
          "Tailor imports BERT encoders (architectures BertModel, BertForMaskedLM, BertForSequenceClassification, "
          "BertForPreTraining); give other models as GGUF files"};
}

struct BertConfig {
  std::int64_t vocabulary = 0, hidden = 0, layers = 0, heads = 0, intermediate = 0, positions = 0, token_types = 0;
  double layer_norm_eps = 1e-12;
};

/// A size that a real model may have; the limit keeps products far from overflow.
Result<std::int64_t> read_size(const fs::path& file, const Json& json, const char* key, std::int64_t limit) {
  const auto it = json.find(key);
  if (it == json.end()) return unsupported(file, fmt::format("'{}' is missing", key));
  if (!it->is_number_unsigned() || it->get<std::uint64_t>() < 1 ||
      it->get<std::uint64_t>() > static_cast<std::uint64_t>(limit)) {
    return unsupported(file, fmt::format("'{}' is {}, expected a whole number from 1 to {}", key,
                                         dump_json(*it).substr(0, 40), limit));
  }
  return it->get<std::int64_t>();
}

Result<BertConfig> read_config(const fs::path& dir) {
  const fs::path file = dir / "config.json";
  TAILOR_TRY(const Json json, read_json(file));
  if (!json.is_object()) return unsupported(file, "not a JSON object");
  std::string architecture;
  if (const auto it = json.find("architectures");
      it != json.end() && it->is_array() && !it->empty() && (*it)[0].is_string()) {
    architecture = (*it)[0].get<std::string>();
  }
  const auto text = [&](const char* key, const char* otherwise) {
    const auto it = json.find(key);
    return it != json.end() && it->is_string() ? it->get<std::string>() : std::string(otherwise);
  };
  const std::string type = text("model_type", "");
  if (type != "bert" || (!architecture.empty() &&
                         std::find(kBertClasses.begin(), kBertClasses.end(), architecture) == kBertClasses.end())) {
    return unsupported(file, fmt::format("the architecture is {} (model type '{}'), which cannot be imported",
                                         architecture.empty() ? "not named" : architecture, type));
  }
  const std::string activation = text("hidden_act", "gelu");
  if (activation != "gelu" && activation != "gelu_new" && activation != "gelu_pytorch_tanh" &&
      activation != "gelu_fast") {
    return unsupported(file, fmt::format("hidden_act is '{}', expected 'gelu'", activation));
  }
  if (const auto p = text("position_embedding_type", "absolute"); p != "absolute") {
    return unsupported(file, fmt::format("position_embedding_type is '{}', expected 'absolute'", p));
  }
  if (json.value("is_decoder", Json(false)) == true)
    return unsupported(file, "is_decoder is true, expected an encoder");
  BertConfig c;
  TAILOR_TRY(c.vocabulary, read_size(file, json, "vocab_size", 4'000'000));
  TAILOR_TRY(c.hidden, read_size(file, json, "hidden_size", 65'536));
  TAILOR_TRY(c.layers, read_size(file, json, "num_hidden_layers", 512));
  TAILOR_TRY(c.heads, read_size(file, json, "num_attention_heads", 1024));
  TAILOR_TRY(c.intermediate, read_size(file, json, "intermediate_size", 1'000'000));
  TAILOR_TRY(c.positions, read_size(file, json, "max_position_embeddings", 1'000'000));
  TAILOR_TRY(c.token_types, read_size(file, json, "type_vocab_size", 1024));
  if (c.hidden % c.heads != 0) {
    return unsupported(file,
                       fmt::format("hidden_size {} is not a multiple of num_attention_heads {}", c.hidden, c.heads));
  }
  if (const auto eps = json.find("layer_norm_eps"); eps != json.end()) {
    if (!eps->is_number() || eps->get<double>() <= 0 || eps->get<double>() > 0.1) {
      return unsupported(file, "'layer_norm_eps' is not a small positive number");
    }
    c.layer_norm_eps = eps->get<double>();
  }
  return c;
}

/// What sentence-transformers adds to a bare encoder.
struct SentenceSettings {
  std::optional<std::uint32_t> pooling;  // llama.cpp's numbers: 1 mean, 2 CLS, 3 last
  std::int64_t max_sequence_length = 0;
  bool normalize = false;
};

Result<std::uint32_t> read_pooling(const fs::path& file) {
  TAILOR_TRY(const Json json, read_json(file));
  const auto on = [&](const char* key) { return json.is_object() && json.value(key, Json(false)) == true; };
  const int modes = on("pooling_mode_mean_tokens") + on("pooling_mode_cls_token") + on("pooling_mode_lasttoken") +
                    on("pooling_mode_max_tokens") + on("pooling_mode_mean_sqrt_len_tokens");
  if (modes == 1 && on("pooling_mode_mean_tokens")) return 1;
  if (modes == 1 && on("pooling_mode_cls_token")) return 2;
  if (modes == 1 && on("pooling_mode_lasttoken")) return 3;
  return unsupported(file, "expected exactly one of mean, CLS and last-token pooling");
}

Result<SentenceSettings> read_sentence_settings(const fs::path& dir) {
  SentenceSettings s;
  std::error_code ec;
  const fs::path modules_file = dir / "modules.json";
  if (fs::exists(modules_file, ec)) {
    TAILOR_TRY(const Json modules, read_json(modules_file));
    for (const Json& module : modules) {
      const std::string type = module.is_object() ? module.value("type", std::string()) : std::string();
      if (type.ends_with("Pooling")) {
        const std::string path = module.value("path", std::string("1_Pooling"));
        if (path.find("..") != std::string::npos || fs::path(path).is_absolute()) {
          return unsupported(modules_file, fmt::format("the path '{}' leads out of the directory", path));
        }
        TAILOR_TRY(s.pooling, read_pooling(dir / path / "config.json"));
      } else if (type.ends_with("Normalize")) {
        s.normalize = true;
      } else if (!type.ends_with("Transformer")) {
        return unsupported(modules_file, fmt::format("the module '{}' is not supported", type));
      }
    }
  }
  const fs::path sentence_file = dir / "sentence_bert_config.json";
  if (fs::exists(sentence_file, ec)) {
    TAILOR_TRY(const Json json, read_json(sentence_file));
    if (json.is_object() && json.contains("max_seq_length") && json["max_seq_length"].is_number_unsigned()) {
      s.max_sequence_length = json["max_seq_length"].get<std::int64_t>();
    }
  }
  return s;
}

/// "license:" and "language:" of the README's front matter (the lines between two "---").
struct Card {
  std::string licence;
  std::vector<std::string> languages;
};
Card read_card(const fs::path& dir) {
  Card card;
  const auto text = read_file(dir / "README.md", 16 << 20);
  if (!text || !text->starts_with("---")) return card;
  const std::string front = text->substr(0, text->find("\n---", 3));
  bool in_languages = false;
  for (std::size_t at = 0; at < front.size();) {
    std::size_t end = front.find('\n', at);
    if (end == std::string::npos) end = front.size();
    std::string line = front.substr(at, end - at);
    at = end + 1;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const auto trimmed = [&](std::size_t from) {
      const auto first = line.find_first_not_of(" \"'", from);
      return first == std::string::npos ? std::string() : line.substr(first, line.find_last_not_of(" \"'") - first + 1);
    };
    if (line.starts_with("license:")) card.licence = trimmed(8);
    if (in_languages && line.starts_with("-") && !line.starts_with("---")) {
      card.languages.push_back(trimmed(1));
      continue;
    }
    in_languages = line.starts_with("language:");
    if (in_languages) {
      if (auto one = trimmed(9); !one.empty() && one[0] != '[') card.languages.push_back(std::move(one));
    }
  }
  return card;
}

struct Part {
  std::string source;               // in the safetensors file, without "bert."
  std::string target;               // in the GGUF file
  std::vector<std::int64_t> shape;  // row-major, as in safetensors
  bool always_f32 = false;
};

std::vector<Part> parts_of(const BertConfig& c) {
  std::vector<Part> parts;
  const auto norm = [&](const std::string& source, const std::string& target) {
    parts.push_back({source + ".weight", target + ".weight", {c.hidden}, true});
    parts.push_back({source + ".bias", target + ".bias", {c.hidden}, true});
  };
  const auto linear = [&](const std::string& source, const std::string& target, std::int64_t out, std::int64_t in) {
    parts.push_back({source + ".weight", target + ".weight", {out, in}, false});
    parts.push_back({source + ".bias", target + ".bias", {out}, true});
  };
  parts.push_back({"embeddings.word_embeddings.weight", "token_embd.weight", {c.vocabulary, c.hidden}, false});
  parts.push_back({"embeddings.position_embeddings.weight", "position_embd.weight", {c.positions, c.hidden}, true});
  parts.push_back({"embeddings.token_type_embeddings.weight", "token_types.weight", {c.token_types, c.hidden}, true});
  norm("embeddings.LayerNorm", "token_embd_norm");
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const std::string from = fmt::format("encoder.layer.{}.", i);
    const std::string to = fmt::format("blk.{}.", i);
    linear(from + "attention.self.query", to + "attn_q", c.hidden, c.hidden);
    linear(from + "attention.self.key", to + "attn_k", c.hidden, c.hidden);
    linear(from + "attention.self.value", to + "attn_v", c.hidden, c.hidden);
    linear(from + "attention.output.dense", to + "attn_output", c.hidden, c.hidden);
    norm(from + "attention.output.LayerNorm", to + "attn_output_norm");
    linear(from + "intermediate.dense", to + "ffn_up", c.intermediate, c.hidden);
    linear(from + "output.dense", to + "ffn_down", c.hidden, c.intermediate);
    norm(from + "output.LayerNorm", to + "layer_output_norm");
  }
  return parts;
}

/// The tensor under any of the names that BERT checkpoints use for it: with "bert.", LayerNorm.gamma and .beta.
const SafeTensor* find_part(const ModelWeights& weights, const std::string& name) {
  std::string old = name;
  if (name.find("LayerNorm") != std::string::npos) {
    if (name.ends_with(".weight")) old = name.substr(0, name.size() - 6) + "gamma";
    if (name.ends_with(".bias")) old = name.substr(0, name.size() - 4) + "beta";
  }
  for (const std::string& candidate : {name, "bert." + name, old, "bert." + old}) {
    if (const SafeTensor* e = weights.find(candidate)) return e;
  }
  return nullptr;
}

/// Tensors of the encoder that the configuration does not announce mean that the two do not belong together.
const SafeTensor* find_surplus(const ModelWeights& weights, const std::vector<const SafeTensor*>& used) {
  for (const SafeTensor* e : weights.tensors()) {
    std::string_view name = e->name;
    if (name.starts_with("bert.")) name.remove_prefix(5);
    if (name == "embeddings.position_ids" || name == "embeddings.token_type_ids") continue;
    const bool inside = name.starts_with("embeddings.") || name.starts_with("encoder.");
    if (inside && std::find(used.begin(), used.end(), e) == used.end()) return e;
  }
  return nullptr;
}

TensorType stored_type(const Part& part, ImportType type) {
  if (part.always_f32 || type == ImportType::kF32) return TensorType::kF32;
  if (type == ImportType::kQ8_0 && part.shape.back() % 32 == 0) return TensorType::kQ8_0;
  return TensorType::kF16;  // also where a row does not fill q8_0's blocks
}

Status set_metadata(GgufWriter& writer, const fs::path& dir, const BertConfig& c, const SentenceSettings& s,
                    const BertVocabulary& v, ImportType type) {
  const auto u32 = [](std::int64_t n) { return GgufValue::u32(static_cast<std::uint32_t>(n)); };
  writer.set("general.architecture", GgufValue::string("bert"));
  writer.set("general.type", GgufValue::string("model"));
  writer.set("general.name", GgufValue::string(fs::absolute(dir).lexically_normal().filename().string()));
  writer.set("general.file_type", u32(type == ImportType::kF32 ? 0 : type == ImportType::kF16 ? 1 : 7));
  if (type == ImportType::kQ8_0) writer.set("general.quantization_version", u32(2));
  const Card card = read_card(dir);
  if (!card.licence.empty()) writer.set("general.license", GgufValue::string(card.licence));
  if (!card.languages.empty()) writer.set("general.languages", GgufValue::strings(card.languages));

  writer.set("bert.block_count", u32(c.layers));
  writer.set("bert.context_length", u32(c.positions));
  writer.set("bert.embedding_length", u32(c.hidden));
  writer.set("bert.feed_forward_length", u32(c.intermediate));
  writer.set("bert.attention.head_count", u32(c.heads));
  writer.set("bert.attention.layer_norm_epsilon", GgufValue::f32(static_cast<float>(c.layer_norm_eps)));
  writer.set("bert.attention.causal", GgufValue::boolean(false));
  if (s.pooling) writer.set("bert.pooling_type", u32(*s.pooling));
  if (s.max_sequence_length > 0) {
    writer.set("tailor.max_sequence_length", u32(std::min(s.max_sequence_length, c.positions)));
  }
  writer.set("tailor.normalize", GgufValue::boolean(s.normalize));

  auto tokens_or = phantom_space_tokens(v);
  if (!tokens_or)
    return Error{tokens_or.error().code, fmt::format("{}: {}", dir.string(), tokens_or.error().message), ""};
  const std::vector<std::string>& tokens = *tokens_or;
  writer.set("tokenizer.ggml.model", GgufValue::string("bert"));
  writer.set("tokenizer.ggml.pre", GgufValue::string("default"));
  writer.set("tokenizer.ggml.token_type_count", u32(c.token_types));
  writer.set("tokenizer.ggml.tokens", GgufValue::strings(tokens));
  writer.set("tokenizer.ggml.token_type", GgufValue::i32s(v.types));
  writer.set("tokenizer.ggml.bos_token_id",
             u32(v.cls));  // llama.cpp puts BOS before a text
  writer.set("tokenizer.ggml.cls_token_id", u32(v.cls));
  writer.set("tokenizer.ggml.seperator_token_id", u32(v.sep));  // the format's own spelling
  writer.set("tokenizer.ggml.unknown_token_id", u32(v.unk));
  writer.set("tokenizer.ggml.padding_token_id", u32(v.pad));
  if (v.mask >= 0) writer.set("tokenizer.ggml.mask_token_id", u32(v.mask));
  writer.set("tokenizer.ggml.normalizer.lowercase", GgufValue::boolean(v.settings.lowercase));
  writer.set("tokenizer.ggml.normalizer.strip_accents", GgufValue::boolean(v.settings.strip_accents));
  writer.set("tailor.tokenizer.clean_text", GgufValue::boolean(v.settings.clean_text));
  writer.set("tailor.tokenizer.handle_chinese_chars", GgufValue::boolean(v.settings.handle_chinese_chars));
  writer.set("tailor.tokenizer.max_chars_per_word", u32(v.settings.max_chars_per_word));
  return {};
}

/// A directory whose configuration and weights fit together.
struct Source {
  BertConfig config;
  SentenceSettings sentence;
  ModelWeights weights;
  std::vector<Part> parts;
  std::vector<const SafeTensor*> entries;  // one a part, owned by weights
};

Result<Source> open_source(const fs::path& dir) {
  std::error_code ec;
  if (!fs::is_directory(dir, ec)) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: there is no such directory", dir.string()), ""};
  }
  TAILOR_TRY(BertConfig config, read_config(dir));
  TAILOR_TRY(SentenceSettings sentence, read_sentence_settings(dir));
  TAILOR_TRY(ModelWeights weights, ModelWeights::open(dir));
  // Some checkpoints pad the embedding beyond vocab_size; the tensor decides how many tokens there are.
  if (const SafeTensor* e = find_part(weights, "embeddings.word_embeddings.weight");
      e != nullptr && e->shape.size() == 2 && e->shape[0] > config.vocabulary &&
      e->shape[0] <= config.vocabulary + 4096) {
    config.vocabulary = e->shape[0];
  }
  std::vector<Part> parts = parts_of(config);
  std::vector<const SafeTensor*> entries;
  for (const Part& part : parts) {
    const SafeTensor* e = find_part(weights, part.source);
    if (e == nullptr) {
      return Error{ErrorCode::kCorruptData, fmt::format("{}: tensor '{}' is missing", dir.string(), part.source),
                   "config.json and the weights do not belong together, or a file is incomplete"};
    }
    if (e->shape != part.shape) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: tensor '{}' has shape [{}], config.json needs [{}]", weights.file_of(*e).string(),
                               e->name, fmt::join(e->shape, ", "), fmt::join(part.shape, ", ")),
                   "config.json and the weights do not belong together"};
    }
    if (e->type != "F32" && e->type != "F16" && e->type != "BF16" && e->type != "F64") {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: tensor '{}' has type {}, expected floating point", weights.file_of(*e).string(),
                               e->name, e->type),
                   ""};
    }
    entries.push_back(e);
  }
  if (const SafeTensor* e = find_surplus(weights, entries)) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor '{}' is not part of the model that config.json describes",
                             weights.file_of(*e).string(), e->name),
                 "config.json and the weights do not belong together"};
  }
  return Source{config, sentence, std::move(weights), std::move(parts), std::move(entries)};
}

}  // namespace

std::string_view name_of(ImportType type) {
  switch (type) {
    case ImportType::kF32:
      return "f32";
    case ImportType::kF16:
      return "f16";
    case ImportType::kQ8_0:
      return "q8_0";
  }
  return "?";
}

bool is_hugging_face_directory(const fs::path& dir) {
  std::error_code ec;
  return fs::is_directory(dir, ec) && fs::exists(dir / "config.json", ec);
}

Result<HuggingFaceSummary> summarize_hugging_face(const fs::path& dir) try {
  TAILOR_TRY(const Source source, open_source(dir));
  HuggingFaceSummary s;
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  s.hidden = size(source.config.hidden);
  s.layers = size(source.config.layers);
  s.positions = size(source.config.positions);
  s.vocabulary = size(source.config.vocabulary);
  const std::int64_t limit = source.sentence.max_sequence_length;
  s.max_sequence_length = limit > 0 ? std::min(size(limit), s.positions) : s.positions;
  for (const SafeTensor* e : source.entries) {
    s.parameters += size(e->elements());
    s.bytes += e->bytes.size();
  }
  s.file_type = source.entries[0]->type;  // the word embeddings, the largest tensor
  std::transform(s.file_type.begin(), s.file_type.end(), s.file_type.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  Card card = read_card(dir);
  s.licence = std::move(card.licence);
  s.languages = std::move(card.languages);
  return s;
} catch (const Json::exception& e) {
  return unsupported(dir, fmt::format("a configuration file holds a field of the wrong type ({})", e.what()));
}

Status import_hugging_face(const fs::path& dir, const fs::path& out, const ImportOptions& options,
                           const ProgressFn& progress) try {
  TAILOR_TRY(const Source source, open_source(dir));
  TAILOR_TRY(const BertVocabulary vocabulary,
             read_bert_vocabulary(dir, static_cast<std::uint64_t>(source.config.vocabulary)));

  GgufWriter writer;
  TAILOR_CHECK(set_metadata(writer, dir, source.config, source.sentence, vocabulary, options.type));
  TAILOR_TRY(const std::string hash, model_sha256(dir));
  writer.set("tailor.source_sha256", GgufValue::string(hash));
  double done = 0;
  const auto total = static_cast<double>(source.parts.size());
  for (std::size_t i = 0; i < source.parts.size(); ++i) {
    const Part& part = source.parts[i];
    std::vector<std::uint64_t> shape(part.shape.rbegin(), part.shape.rend());
    writer.add(part.target, stored_type(part, options.type), std::move(shape),
               [&, entry = source.entries[i]]() -> Result<std::vector<float>> {
                 if (progress) progress({"importing the model", ++done, total});
                 return to_f32(*entry);
               });
  }
  return writer.write(out);
} catch (const Json::exception& e) {  // a field of another type than its name promises
  return unsupported(dir, fmt::format("a configuration file holds a field of the wrong type ({})", e.what()));
}

Result<fs::path> import_cached(const fs::path& dir, const fs::path& cache_dir, const ImportOptions& options,
                               const ProgressFn& progress) {
  if (!is_hugging_face_directory(dir)) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: not a Hugging Face model directory (no config.json)", dir.string()), ""};
  }
  TAILOR_TRY(const std::string hash, model_sha256(dir));
  const std::string key = sha256_hex(fmt::format("{} {}", hash, kImporterVersion));
  const std::string name = fs::absolute(dir).lexically_normal().filename().string();
  const fs::path out = cache_dir / fmt::format("{}-{}-{}.gguf", name, key.substr(0, 16), name_of(options.type));
  std::error_code ec;
  if (fs::exists(out, ec)) return out;
  TAILOR_CHECK(make_directories(cache_dir));
  TAILOR_CHECK(import_hugging_face(dir, out, options, progress));
  return out;
}

}  // namespace tailor
