#include "model/import.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "model/bert_vocabulary.h"
#include "model/file_hash.h"
#include "model/gguf_writer.h"
#include "model/import_byte_level.h"
#include "model/import_config.h"
#include "model/import_decoder.h"
#include "model/import_decoder_config.h"
#include "model/import_modern_bert.h"
#include "model/kept_files.h"
#include "model/model_card.h"
#include "model/model_weights.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kImporterVersion = "4";  // part of the cache key: raise it when the output changes

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
  return cannot_import(file, "expected exactly one of mean, CLS and last-token pooling");
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
          return cannot_import(modules_file, fmt::format("the path '{}' leads out of the directory", path));
        }
        TAILOR_TRY(s.pooling, read_pooling(dir / path / "config.json"));
      } else if (type.ends_with("Normalize")) {
        s.normalize = true;
      } else if (!type.ends_with("Transformer")) {
        return cannot_import(modules_file, fmt::format("the module '{}' is not supported", type));
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

const SafeTensor* find_part(const ModelWeights& weights, EncoderFamily family, const std::string& source) {
  for (const std::string& name : stored_names(family, source)) {
    if (const SafeTensor* e = weights.find(name)) return e;
  }
  return nullptr;
}

/// Tensors of the encoder that the configuration does not announce mean that the two do not belong together.
const SafeTensor* find_surplus(const ModelWeights& weights, EncoderFamily family,
                               const std::vector<const SafeTensor*>& used) {
  for (const SafeTensor* e : weights.tensors()) {
    if (is_inside_encoder(family, e->name) && std::find(used.begin(), used.end(), e) == used.end()) return e;
  }
  return nullptr;
}

/// `entry` may be nullptr (zeros).
TensorType stored_type(const EncoderPart& part, const SafeTensor* entry, ImportType type) {
  if (part.always_f32 || type == ImportType::kF32) return TensorType::kF32;
  if (type == ImportType::kBf16) return TensorType::kBF16;
  if (type == ImportType::kSource) {
    if (entry == nullptr || (entry->type != "F16" && entry->type != "BF16")) return TensorType::kF32;
    return entry->type == "F16" ? TensorType::kF16 : TensorType::kBF16;
  }
  if (type == ImportType::kQ8_0 && part.shape.back() % 32 == 0) return TensorType::kQ8_0;
  return TensorType::kF16;  // also where a row does not fill q8_0's blocks
}

void set_metadata(GgufWriter& writer, const fs::path& dir, const EncoderConfig& c, const SentenceSettings& s,
                  ImportType type, const std::string& source_type) {
  const bool source = type == ImportType::kSource;
  const int file_type = type == ImportType::kF16 || (source && source_type == "F16")     ? 1
                        : type == ImportType::kBf16 || (source && source_type == "BF16") ? 32
                        : type == ImportType::kQ8_0                                      ? 7
                                                                                         : 0;
  const auto u32 = [](std::int64_t n) { return GgufValue::u32(static_cast<std::uint32_t>(n)); };
  writer.set("general.architecture", GgufValue::string(std::string(c.architecture())));
  writer.set("general.type", GgufValue::string("model"));
  writer.set("general.name", GgufValue::string(fs::absolute(dir).lexically_normal().filename().string()));
  writer.set("general.file_type", u32(file_type));
  if (type == ImportType::kQ8_0) writer.set("general.quantization_version", u32(2));
  const ModelCard card = read_model_card(dir);
  if (!card.licence.empty()) writer.set("general.license", GgufValue::string(card.licence));
  if (!card.languages.empty()) writer.set("general.languages", GgufValue::strings(card.languages));

  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", c.architecture(), name); };
  writer.set(key("block_count"), u32(c.layers));
  writer.set(key("context_length"), u32(c.positions));
  writer.set(key("embedding_length"), u32(c.hidden));
  writer.set(key("feed_forward_length"), u32(c.intermediate));
  writer.set(key("attention.head_count"), u32(c.heads));
  writer.set(key("attention.layer_norm_epsilon"), GgufValue::f32(static_cast<float>(c.layer_norm_eps)));
  writer.set(key("attention.causal"), GgufValue::boolean(false));
  if (s.pooling) {
    writer.set(key("pooling_type"), u32(*s.pooling));
  } else if (!c.pooling.empty()) {
    writer.set(key("pooling_type"), u32(c.pooling == "mean" ? 1 : 2));
  }
  if (c.family == EncoderFamily::kModernBert) set_modern_bert(writer, c);
  if (s.max_sequence_length > 0) {
    writer.set("tailor.max_sequence_length", u32(std::min(s.max_sequence_length, c.positions)));
  }
  writer.set("tailor.normalize", GgufValue::boolean(s.normalize));
  writer.set("tokenizer.ggml.token_type_count", u32(c.token_types));
}

Status set_word_pieces(GgufWriter& writer, const fs::path& dir, const BertVocabulary& v) {
  const auto u32 = [](std::int64_t n) { return GgufValue::u32(static_cast<std::uint32_t>(n)); };
  auto tokens_or = phantom_space_tokens(v);
  if (!tokens_or)
    return Error{tokens_or.error().code, fmt::format("{}: {}", dir.string(), tokens_or.error().message), ""};
  std::vector<std::string>& tokens = *tokens_or;
  // Of "##" and U+2581 the rest alone would be read back as a word: such a piece stays as it is, as Tokenizer knows.
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (v.tokens[i].starts_with("##\xE2\x96\x81")) tokens[i] = v.tokens[i];
  }
  writer.set("tokenizer.ggml.model", GgufValue::string("bert"));
  writer.set("tokenizer.ggml.pre", GgufValue::string("default"));
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

/// The values of a part in the GGUF file.
std::vector<float> values_of(const EncoderPart& part, const SafeTensor* entry) {
  std::int64_t count = 1;
  for (const std::int64_t n : part.shape) count *= n;
  if (entry == nullptr) return std::vector<float>(static_cast<std::size_t>(count));
  std::vector<float> values = to_f32(*entry);
  values.erase(values.begin(), values.end() - count);  // skipped rows
  return values;
}

/// A directory whose configuration and weights fit together.
struct Source {
  EncoderConfig config;
  SentenceSettings sentence;
  ModelWeights weights;
  std::vector<EncoderPart> parts;
  std::vector<const SafeTensor*> entries;  // one a part, owned by weights; nullptr: zeros
  std::optional<ByteLevelVocabulary>
      byte_level;  // RoBERTa's and ModernBERT's, which decides whether the directory can be imported
};

Result<Source> open_source(const fs::path& dir) {
  std::error_code ec;
  if (!fs::is_directory(dir, ec)) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: there is no such directory", dir.string()), ""};
  }
  TAILOR_TRY(EncoderConfig config, read_encoder_config(dir));
  TAILOR_TRY(SentenceSettings sentence, read_sentence_settings(dir));
  TAILOR_TRY(ModelWeights weights, ModelWeights::open(dir));
  // Some checkpoints pad the embedding beyond vocab_size; the tensor decides how many tokens there are.
  if (const SafeTensor* e = find_part(weights, config.family, std::string(word_embeddings(config.family)));
      e != nullptr && e->shape.size() == 2 && e->shape[0] > config.vocabulary &&
      e->shape[0] <= config.vocabulary + 4096) {
    config.vocabulary = e->shape[0];
  }
  std::vector<EncoderPart> parts = encoder_parts(config);
  std::vector<const SafeTensor*> entries;
  for (const EncoderPart& part : parts) {
    if (part.source.empty()) {
      entries.push_back(nullptr);
      continue;
    }
    const SafeTensor* e = find_part(weights, config.family, part.source);
    if (e == nullptr) {
      return Error{ErrorCode::kCorruptData, fmt::format("{}: tensor '{}' is missing", dir.string(), part.source),
                   "config.json and the weights do not belong together, or a file is incomplete"};
    }
    if (e->shape != part.source_shape()) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: tensor '{}' has shape [{}], config.json needs [{}]", weights.file_of(*e).string(),
                               e->name, fmt::join(e->shape, ", "), fmt::join(part.source_shape(), ", ")),
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
  if (const SafeTensor* e = find_surplus(weights, config.family, entries)) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor '{}' is not part of the model that config.json describes",
                             weights.file_of(*e).string(), e->name),
                 "config.json and the weights do not belong together"};
  }
  std::optional<ByteLevelVocabulary> byte_level;
  if (config.family == EncoderFamily::kRoberta || config.family == EncoderFamily::kModernBert) {
    TAILOR_TRY(byte_level, read_byte_level_vocabulary(dir, config.vocabulary));
  }
  return Source{config, sentence, std::move(weights), std::move(parts), std::move(entries), std::move(byte_level)};
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
    case ImportType::kBf16:
      return "bf16";
    case ImportType::kSource:
      return "source";
  }
  return "?";
}

bool is_hugging_face_directory(const fs::path& dir) {
  std::error_code ec;
  return fs::is_directory(dir, ec) && fs::exists(dir / "config.json", ec);
}

Result<HuggingFaceSummary> summarize_hugging_face(const fs::path& dir) try {
  if (is_decoder_directory(dir)) return summarize_decoder(dir);
  TAILOR_TRY(const Source source, open_source(dir));
  HuggingFaceSummary s;
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  s.architecture = source.config.architecture();
  s.hidden = size(source.config.hidden);
  s.layers = size(source.config.layers);
  s.positions = size(source.config.positions);
  s.vocabulary = size(source.config.vocabulary);
  const std::int64_t limit = source.sentence.max_sequence_length;
  s.max_sequence_length = limit > 0 ? std::min(size(limit), s.positions) : s.positions;
  for (const SafeTensor* e : source.entries) {
    if (e == nullptr) continue;
    s.parameters += size(e->elements());
    s.bytes += e->bytes.size();
  }
  s.file_type = source.entries[0]->type;  // the word embeddings, the largest tensor
  std::transform(s.file_type.begin(), s.file_type.end(), s.file_type.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  ModelCard card = read_model_card(dir);
  s.licence = std::move(card.licence);
  s.languages = std::move(card.languages);
  return s;
} catch (const Json::exception& e) {
  return cannot_import(dir, fmt::format("a configuration file holds a field of the wrong type ({})", e.what()));
}

Status import_hugging_face(const fs::path& dir, const fs::path& out, const ImportOptions& options,
                           const ProgressFn& progress) try {
  if (is_decoder_directory(dir)) return import_decoder(dir, out, options, progress);
  TAILOR_TRY(const Source source, open_source(dir));
  GgufWriter writer;
  set_metadata(writer, dir, source.config, source.sentence, options.type, source.entries[0]->type);
  if (source.byte_level) {
    const bool modern = source.config.family == EncoderFamily::kModernBert;
    set_vocabulary(writer, *source.byte_level, source.config.padding, modern ? "modern-bert" : "roberta-bpe");
  } else {
    TAILOR_TRY(const BertVocabulary vocabulary,
               read_bert_vocabulary(dir, static_cast<std::uint64_t>(source.config.vocabulary)));
    TAILOR_CHECK(set_word_pieces(writer, dir, vocabulary));
  }
  TAILOR_TRY(const std::string hash, model_sha256(dir));
  writer.set("tailor.source_sha256", GgufValue::string(hash));
  writer.set("tailor.source_model_type", GgufValue::string(source.config.model_type));
  TAILOR_CHECK(keep_files(writer, dir));
  std::vector<std::string> types, names;
  for (const SafeTensor* e : source.entries) {
    types.push_back(e == nullptr ? "" : e->type);
    names.push_back(e == nullptr ? "" : e->name);
  }
  writer.set("tailor.source.types", GgufValue::strings(types));
  writer.set("tailor.source.names", GgufValue::strings(names));
  for (std::size_t i = 0; i < source.parts.size(); ++i) {
    if (source.parts[i].skipped_rows == 0) continue;
    std::vector<float> rows = to_f32(*source.entries[i]);
    rows.resize(static_cast<std::size_t>(source.parts[i].skipped_rows * source.config.hidden));
    writer.set("tailor.source.skipped_rows", GgufValue::f32s(rows));
  }
  double done = 0;
  const auto total = static_cast<double>(source.parts.size());
  for (std::size_t i = 0; i < source.parts.size(); ++i) {
    const EncoderPart& part = source.parts[i];
    std::vector<std::uint64_t> shape(part.shape.rbegin(), part.shape.rend());
    writer.add(part.target, stored_type(part, source.entries[i], options.type), std::move(shape),
               [&, i]() -> Result<std::vector<float>> {
                 if (progress) progress({"importing the model", ++done, total});
                 return values_of(source.parts[i], source.entries[i]);
               });
  }
  return writer.write(out);
} catch (const Json::exception& e) {  // a field of another type than its name promises
  return cannot_import(dir, fmt::format("a configuration file holds a field of the wrong type ({})", e.what()));
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
