#include "model/export_hugging_face.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "core/files.h"
#include "core/safetensors.h"
#include "model/decoder_file.h"
#include "model/encoder_file.h"
#include "model/gguf_writer.h"
#include "model/kept_files.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTensorTypes[] = {"F32", "F16", "BF16"};

/// A tensor on its way out.
struct Part {
  DecoderTensor layout;
  const GgufTensor* stored = nullptr;
  std::string type;            // in the safetensors file
  std::vector<float> exact;    // values that the shift has rounded; empty: those in the file
  std::vector<float> skipped;  // rows before those in the file
};

TensorType tensor_type(std::string_view type) {
  return type == "F16" ? TensorType::kF16 : type == "BF16" ? TensorType::kBF16 : TensorType::kF32;
}

std::string_view type_name(TensorType type) {
  return type == TensorType::kF16 ? "F16" : type == TensorType::kBF16 ? "BF16" : "F32";
}

bool is_plain(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16;
}

Result<std::vector<float>> values_of(const Part& part) {
  if (!part.exact.empty()) return part.exact;
  TAILOR_TRY(const std::vector<float> values, to_f32(*part.stored));
  return to_hugging_face(part.layout, values);
}

Result<std::string> bytes_of(const Part& part) {
  if (part.exact.empty() && part.layout.shift == 0 && is_plain(part.stored->type) &&
      type_name(part.stored->type) == part.type) {
    return bytes_to_hugging_face(part.layout, part.stored->bytes, safetensor_type_bytes(part.type));
  }
  TAILOR_TRY(const std::vector<float> values, values_of(part));
  return encode_tensor(tensor_type(part.type), values, values.size());
}

/// Whether the type holds all values of the tensor.
Result<bool> holds(const Part& part, std::string_view type) {
  if (type == "F32" ||
      (part.layout.shift == 0 && type_name(part.stored->type) == type && is_plain(part.stored->type))) {
    return true;
  }
  TAILOR_TRY(const std::vector<float> values, values_of(part));
  TAILOR_TRY(const std::string bytes, encode_tensor(tensor_type(type), values, values.size()));
  GgufTensor narrow{"", tensor_type(type), {values.size()}, values.size(), 0, bytes};
  TAILOR_TRY(const std::vector<float> back, to_f32(narrow));
  return std::memcmp(back.data(), values.data(), values.size() * sizeof(float)) == 0;
}

/// The type a tensor had in the directory that the file was made from, else the file's own main type.
std::string_view source_type(const GgufFile& file, std::size_t index, std::size_t count) {
  std::string_view type = type_name(file.tensor("token_embd.weight")->type);
  if (const GgufValue* kept = file.find("tailor.source.types")) {
    if (const auto one = kept->as_string()) type = *one;
    if (const auto many = kept->as_strings(); many && many->size() == count) type = (*many)[index];
  }
  return std::find(std::begin(kTensorTypes), std::end(kTensorTypes), type) == std::end(kTensorTypes) ? "F32" : type;
}

/// Gemma's norms before 1 was added, where the file still has them and they still give the stored values.
std::vector<float> exact_values(const GgufFile& file, const Part& part) {
  const GgufValue* kept = file.find("tailor.exact." + part.layout.hugging_face);
  const auto numbers = kept == nullptr ? std::nullopt : kept->as_numbers();
  if (!numbers || numbers->size() != part.stored->elements) return {};
  std::vector<float> values;
  for (const double x : *numbers) values.push_back(static_cast<float>(x));
  const auto stored = to_f32(*part.stored);
  return stored && to_gguf(part.layout, values) == *stored ? values : std::vector<float>{};
}

/// The encoder's tensors; `config` is its config.json.
Result<std::vector<Part>> encoder_layout(const GgufFile& file, const Json& config) {
  TAILOR_TRY(const EncoderConfig c, encoder_config(config));
  std::vector<Part> parts;
  for (const EncoderPart& p : encoder_parts(c)) {
    Part part;
    part.layout.hugging_face = p.source;
    part.layout.gguf = p.target;
    part.layout.shape = p.shape;
    if (p.skipped_rows > 0) {  // RoBERTa's rows of padding, which no text reads
      part.skipped.assign(static_cast<std::size_t>(p.skipped_rows * c.hidden), 0.0f);
      const GgufValue* kept = file.find("tailor.source.skipped_rows");
      const auto numbers = kept == nullptr ? std::nullopt : kept->as_numbers();
      if (numbers && numbers->size() == part.skipped.size()) {
        std::transform(numbers->begin(), numbers->end(), part.skipped.begin(),
                       [](double x) { return static_cast<float>(x); });
      }
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

/// Finds the tensors in the file, and decides names and types.
Status fill_in(const GgufFile& file, const ExportOptions& options, std::vector<Part>& parts) {
  const GgufValue* kept_names = file.find("tailor.source.names");
  const auto names = kept_names == nullptr ? std::nullopt : kept_names->as_strings();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Part& part = parts[i];
    part.stored = file.tensor(part.layout.gguf);
    if (part.stored == nullptr) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: tensor '{}' is missing", file.path().string(), part.layout.gguf),
                   "models with other tensors than their family's cannot be exported"};
    }
    const std::vector<std::int64_t> shape = part.layout.gguf_shape();
    const std::vector<std::uint64_t> expected(shape.rbegin(), shape.rend());
    if (part.stored->shape != expected || !can_be_f32(part.stored->type)) {
      return Error{
          ErrorCode::kCorruptData,
          fmt::format("{}: tensor '{}' is {} [{}], expected numbers [{}]", file.path().string(), part.layout.gguf,
                      name_of(part.stored->type), fmt::join(part.stored->shape, ", "), fmt::join(expected, ", ")),
          ""};
    }
    if (part.layout.shift != 0) part.exact = exact_values(file, part);
    if (!part.skipped.empty()) {
      TAILOR_TRY(const std::vector<float> rows, to_f32(*part.stored));
      part.exact = std::move(part.skipped);
      part.exact.insert(part.exact.end(), rows.begin(), rows.end());
      part.layout.shape[0] = static_cast<std::int64_t>(part.exact.size()) / part.layout.shape[1];
    }
    if (names && names->size() == parts.size() && !(*names)[i].empty()) part.layout.hugging_face = (*names)[i];
    switch (options.type) {
      case ExportType::kF32:
        part.type = "F32";
        break;
      case ExportType::kF16:
        part.type = "F16";
        break;
      case ExportType::kBf16:
        part.type = "BF16";
        break;
      case ExportType::kSource: {
        const std::string_view wanted = source_type(file, i, parts.size());
        TAILOR_TRY(const bool fits, holds(part, wanted));
        part.type = fits ? wanted : "F32";
      }
    }
  }
  // DistilBERT has no token types: llama.cpp's row of zeros came from nowhere.
  std::erase_if(parts, [](const Part& part) { return part.layout.hugging_face.empty(); });
  return {};
}

Status write_weights(const fs::path& dir, const std::vector<Part>& parts, const ExportOptions& options,
                     const ProgressFn& progress, ExportReport& report) {
  double done = 0;
  std::vector<std::vector<StreamedTensor>> shards(1);
  std::uint64_t total = 0, in_shard = 0;
  for (const Part& part : parts) {
    StreamedTensor t{part.layout.hugging_face, part.type, part.layout.shape, [&part, &done, &parts, &progress] {
                       if (progress) progress({"exporting the model", ++done, static_cast<double>(parts.size())});
                       return bytes_of(part);
                     }};
    if (in_shard > 0 && in_shard + t.size() > options.shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    in_shard += t.size();
    total += t.size();
    shards.back().push_back(std::move(t));
  }
  const std::map<std::string, std::string> metadata = {{"format", "pt"}};
  Json map = Json::object();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? std::string("model.safetensors")
                                                : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    TAILOR_CHECK(write_safetensors(dir / name, std::span<const StreamedTensor>(shards[i]), metadata));
    for (const StreamedTensor& t : shards[i]) map[t.name] = name;
    report.files.push_back(name);
  }
  if (shards.size() == 1) return {};
  report.files.emplace_back("model.safetensors.index.json");
  return write_json_atomic(dir / report.files.back(), Json{{"metadata", {{"total_size", total}}}, {"weight_map", map}});
}

Status write_tokenizer(const fs::path& dir, const GgufFile& file, ExportReport& report) {
  const std::size_t before = report.files.size();
  TAILOR_CHECK(write_kept_files(file, dir, report.files));
  if (report.files.size() > before) return {};
  const auto put = [&](const std::string& name, std::string_view bytes) -> Status {
    report.files.push_back(name);
    return write_file_atomic(dir / name, bytes);
  };
  const auto made = tokenizer_files(file);
  if (!made) {
    report.notes.push_back(made.error().message);
    return {};
  }
  TAILOR_CHECK(put("tokenizer.json", dump_json(made->tokenizer, 2) + "\n"));
  TAILOR_CHECK(put("tokenizer_config.json", dump_json(made->settings, 2) + "\n"));
  report.notes.emplace_back(
      "tokenizer.json was made from the vocabulary in the GGUF file, which does not keep settings that change no "
      "token");
  return {};
}

}  // namespace

Result<ExportReport> export_hugging_face(const fs::path& gguf, const fs::path& out_dir, const ExportOptions& options,
                                         const ProgressFn& progress) {
  TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
  std::error_code ec;
  if (fs::exists(out_dir / "config.json", ec)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: there is a model already", out_dir.string()),
                 "give a new directory"};
  }
  TAILOR_TRY(const std::string arch, file.architecture());
  const GgufTensor* embedding = file.tensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: tensor 'token_embd.weight' is missing", gguf.string()), ""};
  }
  const std::optional<Json> kept = kept_config(file, embedding->shape[1]);
  Json config;
  std::vector<Part> parts;
  if (arch == "bert" || arch == "modern-bert") {
    TAILOR_TRY(config, encoder_config_json(file));
    TAILOR_TRY(parts, encoder_layout(file, config));
  } else {
    TAILOR_TRY(DecoderSizes sizes, decoder_sizes(file));
    TAILOR_TRY(config, kept ? Result(*kept) : decoder_config_json(file));
    if (kept && sizes.family == DecoderFamily::kGptNeoX) {
      sizes.tied_output = config.value("tie_word_embeddings", Json(false)) == true;
    }
    for (DecoderTensor& t : decoder_tensors(sizes)) parts.push_back({std::move(t), nullptr, "", {}, {}});
  }
  TAILOR_CHECK(fill_in(file, options, parts));
  TAILOR_CHECK(make_directories(out_dir));
  ExportReport report;
  const bool quantized =
      std::any_of(parts.begin(), parts.end(), [](const Part& p) { return !is_plain(p.stored->type); });
  if (quantized) {
    report.notes.push_back(
        fmt::format("the weights are quantised and were written as they dequantise, in {}", parts[0].type));
  }
  TAILOR_CHECK(write_weights(out_dir, parts, options, progress, report));
  TAILOR_CHECK(write_tokenizer(out_dir, file, report));
  // Last, so that a directory with a config.json is whole.
  report.files.emplace_back("config.json");
  if (kept && options.type == ExportType::kSource) {
    TAILOR_CHECK(write_file_atomic(out_dir / "config.json", *kept_file(file, "config.json")));
    return report;
  }
  if (!kept) report.notes.emplace_back("config.json was made from the GGUF file's metadata");
  const std::string_view type = parts[0].type;
  config.erase("torch_dtype");
  config["dtype"] = type == "F16" ? "float16" : type == "BF16" ? "bfloat16" : "float32";
  TAILOR_CHECK(write_json_atomic(out_dir / "config.json", config));
  return report;
}

}  // namespace tailor
