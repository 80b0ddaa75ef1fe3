#include "model/import_decoder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <set>

#include "core/files.h"
#include "model/file_hash.h"
#include "model/gguf_writer.h"
#include "model/import_config.h"
#include "model/import_decoder_config.h"
#include "model/import_decoder_tokens.h"
#include "model/kept_files.h"
#include "model/model_card.h"
#include "model/model_weights.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

/// A directory whose configuration and weights fit together.
struct Source {
  DecoderConfig config;
  ModelWeights weights;
  std::vector<DecoderTensor> tensors;
  std::vector<const SafeTensor*> entries;  // one a tensor, owned by weights
};

/// Transformers computes these anew, or they repeat the embedding.
bool is_surplus(const DecoderSizes& sizes, std::string_view name) {
  for (const std::string_view end :
       {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"}) {
    if (name.ends_with(end)) return true;
  }
  return sizes.tied_output && (name == "lm_head.weight" || name == "embed_out.weight");
}

const SafeTensor* find_entry(const ModelWeights& weights, DecoderFamily family, const std::string& name) {
  if (const SafeTensor* e = weights.find(name)) return e;
  const std::string_view prefix = base_prefix(family);  // a bare model's names lack it
  return name.starts_with(prefix) ? weights.find(name.substr(prefix.size())) : nullptr;
}

Result<const SafeTensor*> checked_entry(const fs::path& dir, const ModelWeights& weights, DecoderFamily family,
                                        const DecoderTensor& t) {
  const SafeTensor* e = find_entry(weights, family, t.hugging_face);
  if (e == nullptr) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: tensor '{}' is missing", dir.string(), t.hugging_face),
                 "config.json and the weights do not belong together, or a file is incomplete"};
  }
  if (e->shape != t.shape) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor '{}' has shape [{}], config.json needs [{}]", weights.file_of(*e).string(),
                             e->name, fmt::join(e->shape, ", "), fmt::join(t.shape, ", ")),
                 "config.json and the weights do not belong together"};
  }
  if (e->type != "F32" && e->type != "F16" && e->type != "BF16" && e->type != "F64") {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor '{}' has type {}, expected floating point", weights.file_of(*e).string(),
                             e->name, e->type),
                 "quantised weights cannot be imported; give the model in f32, f16 or bf16"};
  }
  return e;
}

Result<Source> open_source(const fs::path& dir) {
  TAILOR_TRY(DecoderConfig config, read_decoder_config(dir));
  TAILOR_TRY(ModelWeights weights, ModelWeights::open(dir));
  std::vector<DecoderTensor> tensors = decoder_tensors(config.sizes);
  std::vector<const SafeTensor*> entries;
  std::set<const SafeTensor*> used;
  for (const DecoderTensor& t : tensors) {
    TAILOR_TRY(const SafeTensor* entry, checked_entry(dir, weights, config.sizes.family, t));
    entries.push_back(entry);
    used.insert(entry);
  }
  for (const SafeTensor* e : weights.tensors()) {
    if (used.contains(e) || is_surplus(config.sizes, e->name)) continue;
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor '{}' is not part of the model that config.json describes",
                             weights.file_of(*e).string(), e->name),
                 "config.json and the weights do not belong together"};
  }
  return Source{std::move(config), std::move(weights), std::move(tensors), std::move(entries)};
}

TensorType type_of(const SafeTensor& entry) {
  if (entry.type == "F16") return TensorType::kF16;
  return entry.type == "BF16" ? TensorType::kBF16 : TensorType::kF32;
}

bool is_large(TensorRole role) {
  return role == TensorRole::kMatrix || role == TensorRole::kEmbedding || role == TensorRole::kOutput;
}

TensorType stored_type(const DecoderTensor& t, const SafeTensor& entry, ImportType type) {
  if (!is_large(t.role)) return TensorType::kF32;
  switch (type) {
    case ImportType::kF32:
      return TensorType::kF32;
    case ImportType::kF16:
      return TensorType::kF16;
    case ImportType::kBf16:
      return TensorType::kBF16;
    case ImportType::kSource:
      return type_of(entry);
    case ImportType::kQ8_0:
      break;
  }
  return t.gguf_shape().back() % 32 == 0 ? TensorType::kQ8_0 : TensorType::kF16;
}

/// llama.cpp's numbers of what most tensors of a file are.
std::uint32_t file_type(const Source& source, ImportType type) {
  const TensorType most = stored_type(source.tensors[0], *source.entries[0], type);
  switch (most) {
    case TensorType::kF32:
      return 0;
    case TensorType::kF16:
      return 1;
    case TensorType::kQ8_0:
      return 7;
    default:
      return 32;  // bf16
  }
}

void set_general(GgufWriter& writer, const fs::path& dir, const Source& source, ImportType type) {
  writer.set("general.architecture", GgufValue::string(gguf_architecture(source.config.sizes.family)));
  writer.set("general.type", GgufValue::string("model"));
  writer.set("general.name", GgufValue::string(fs::absolute(dir).lexically_normal().filename().string()));
  const std::uint32_t number = file_type(source, type);
  writer.set("general.file_type", GgufValue::u32(number));
  if (number == 7) writer.set("general.quantization_version", GgufValue::u32(2));
  const ModelCard card = read_model_card(dir);
  if (!card.licence.empty()) writer.set("general.license", GgufValue::string(card.licence));
  if (!card.languages.empty()) writer.set("general.languages", GgufValue::strings(card.languages));
}

void set_source(GgufWriter& writer, const Source& source) {
  std::vector<std::string> types;
  for (const SafeTensor* e : source.entries) types.push_back(e->type);
  const bool one = std::all_of(types.begin(), types.end(), [&](const std::string& t) { return t == types[0]; });
  writer.set("tailor.source.types", one ? GgufValue::string(types[0]) : GgufValue::strings(types));
  writer.set("tailor.source_model_type", GgufValue::string(source.config.model_type));
  std::vector<std::string> names;
  bool usual = true;
  for (std::size_t i = 0; i < source.entries.size(); ++i) {
    names.push_back(source.entries[i]->name);
    usual = usual && names.back() == source.tensors[i].hugging_face;
  }
  if (!usual) writer.set("tailor.source.names", GgufValue::strings(names));
  for (std::size_t i = 0; i < source.tensors.size(); ++i) {
    if (source.tensors[i].shift == 0) continue;
    const std::vector<float> values = to_f32(*source.entries[i]);
    if (survives_gguf(source.tensors[i], values)) continue;
    writer.set("tailor.exact." + source.tensors[i].hugging_face, GgufValue::f32s(values));
  }
}

/// Adds tensors whose values are made when they are written; only one is in memory at a time.
class TensorWriter {
 public:
  TensorWriter(GgufWriter& writer, const ProgressFn& progress, std::size_t total)
      : writer_(writer), progress_(progress), total_(static_cast<double>(total)) {}

  void add(const DecoderTensor& t, const SafeTensor& entry, const std::string& name, TensorType type) {
    const std::vector<std::int64_t> shape = t.gguf_shape();
    const std::vector<std::uint64_t> ggml_shape(shape.rbegin(), shape.rend());
    if (type == type_of(entry) && entry.type != "F64" && t.shift == 0) {  // the same bits in another order
      writer_.add_raw(name, type, ggml_shape, [this, &t, &entry]() -> Result<std::string_view> {
        count();
        if (!t.transposed && t.rows.kind == RowOrder::Kind::kSame) return entry.bytes;
        *buffer_ = bytes_to_gguf(t, entry.bytes, safetensor_type_bytes(entry.type));
        return std::string_view(*buffer_);
      });
      return;
    }
    writer_.add(name, type, ggml_shape, [this, &t, &entry]() -> Result<std::vector<float>> {
      count();
      return to_gguf(t, to_f32(entry));
    });
  }
  void add(const std::string& name, const std::vector<float>& values) {
    if (values.empty()) return;
    writer_.add(name, TensorType::kF32, {values.size()}, [this, &values]() -> Result<std::vector<float>> {
      count();
      return values;
    });
  }

 private:
  void count() {
    if (progress_) progress_({"importing the model", ++*done_, total_});
  }
  GgufWriter& writer_;
  const ProgressFn& progress_;
  double total_;
  std::shared_ptr<double> done_ = std::make_shared<double>(0);
  std::shared_ptr<std::string> buffer_ = std::make_shared<std::string>();
};

}  // namespace

Result<HuggingFaceSummary> summarize_decoder(const fs::path& dir) {
  TAILOR_TRY(const Source source, open_source(dir));
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  HuggingFaceSummary s;
  s.is_decoder = true;
  s.architecture = gguf_architecture(source.config.sizes.family);
  s.hidden = size(source.config.sizes.hidden);
  s.layers = size(source.config.sizes.layers);
  s.positions = s.max_sequence_length = size(source.config.context);
  s.vocabulary = size(source.config.sizes.vocabulary);
  for (const SafeTensor* e : source.entries) {
    s.parameters += size(e->elements());
    s.bytes += e->bytes.size();
  }
  s.file_type = name_of(type_of(*source.entries[0]));
  ModelCard card = read_model_card(dir);
  s.licence = std::move(card.licence);
  s.languages = std::move(card.languages);
  return s;
}

Status import_decoder(const fs::path& dir, const fs::path& out, const ImportOptions& options,
                      const ProgressFn& progress) {
  TAILOR_TRY(const Source source, open_source(dir));
  TAILOR_TRY(const TokenJson config, read_token_json(dir / "config.json"));
  TAILOR_TRY(const DecoderVocabulary vocabulary, read_decoder_vocabulary(dir, source.config.sizes.vocabulary, config));
  GgufWriter writer;
  set_general(writer, dir, source, options.type);
  for (const auto& [key, value] : source.config.metadata) writer.set(key, value);
  set_vocabulary(writer, vocabulary);
  TAILOR_TRY(const std::string hash, model_sha256(dir));
  writer.set("tailor.source_sha256", GgufValue::string(hash));
  set_source(writer, source);
  TAILOR_CHECK(keep_files(writer, dir));

  TensorWriter tensors(writer, progress, source.tensors.size());
  for (std::size_t i = 0; i < source.tensors.size(); ++i) {
    const DecoderTensor& t = source.tensors[i];
    tensors.add(t, *source.entries[i], t.gguf, stored_type(t, *source.entries[i], options.type));
  }
  if (source.config.sizes.family == DecoderFamily::kGptNeoX && source.config.sizes.tied_output) {
    // llama.cpp knows no GPT-NeoX without an output layer of its own.
    tensors.add(source.tensors[0], *source.entries[0], "output.weight",
                stored_type(source.tensors[0], *source.entries[0], options.type));
  }
  tensors.add("rope_freqs.weight", source.config.rope_freqs);
  tensors.add("rope_factors_long.weight", source.config.rope_long);
  tensors.add("rope_factors_short.weight", source.config.rope_short);
  return writer.write(out);
}

}  // namespace tailor
