#include "fit/tuned_encoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "core/bottleneck_file.h"
#include "core/files.h"
#include "core/head_file.h"
#include "core/safetensors.h"
#include "fit/head_start.h"
#include "infer/embedder.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHeadFile = "head.safetensors";
constexpr const char* kAdapterWeights = "adapter_model.safetensors";
constexpr std::string_view kHeadPrefix = "head.";

Status write_head(const SafetensorsFile& weights, const fs::path& to) {
  std::vector<SafeTensor> tensors;
  for (const char* name : {kHeadWeight, kHeadBias}) {
    const SafeTensor* tensor = weights.find(name);
    if (tensor == nullptr)
      return Error{ErrorCode::kCorruptData, fmt::format("{}: {} is missing", weights.path().string(), name), ""};
    tensors.push_back(*tensor);
  }
  return write_head_file(to, tensors, reads_unit_vectors(weights.metadata()));
}

void softmax(std::span<float> scores) {
  const float largest = *std::max_element(scores.begin(), scores.end());
  float sum = 0;
  for (auto& value : scores) sum += value = std::exp(value - largest);
  for (auto& value : scores) value /= sum;
}

class TunedEncoderClassifier final : public Classifier {
 public:
  TunedEncoderClassifier(ServedEncoder encoder, const PackageTarget& target)
      : encoder_(std::move(encoder)), target_(target) {}

  Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn& progress,
                               const CancelToken& cancel) override {
    TAILOR_TRY(const Matrix x, encoder_.embedder.embed(texts, progress, cancel));
    Matrix p(x.rows, encoder_.weight.rows);
    for (std::size_t i = 0; i < x.rows; ++i) {
      const auto out = p.row(i);
      encoder_.score(x.row(i), out);
      switch (target_.kind) {
        case PackageTarget::Kind::kLabel:
          softmax(out);
          break;
        case PackageTarget::Kind::kLabelSet:
          for (float& value : out) value = 1 / (1 + std::exp(-value));
          break;
        case PackageTarget::Kind::kNumber:
          for (float& value : out) value = static_cast<float>(target_.mean + target_.deviation * value);
          break;
        case PackageTarget::Kind::kTags:  // fit/tagger.h
        case PackageTarget::Kind::kSpan:  // fit/question_model.h
          break;
      }
    }
    return p;
  }

 private:
  ServedEncoder encoder_;
  PackageTarget target_;
};

}  // namespace

bool makes_pairs(std::string_view text_template) {
  return text_template.find(kPairSeparator) != std::string_view::npos;
}

Result<EncoderReading> encoder_reading(const fs::path& gguf, std::string_view text_template) {
  TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
  TAILOR_TRY(const std::string architecture, file.architecture());
  TAILOR_TRY(const std::int64_t positions, file.integer(architecture + ".context_length"));
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(2, positions));
  return EncoderReading{makes_pairs(text_template), std::min(kEncoderTokens, most), most};
}

void add_encoder_row(TokenFile& file, const Tokenizer& tokenizer, std::string_view text, const EncoderReading& reading,
                     std::int32_t label, TokenPart part, std::int64_t row_id) {
  if (!reading.pairs) {
    tokenizer.append_truncated(text, reading.limit, /*add_special=*/true, file.tokens);
    end_row(file, label, part, row_id);
    return;
  }
  const PairTokens tokens = tokenizer.encode_pair(text, reading.limit);
  file.add_row(tokens.ids, label, part, row_id);
  if (tokenizer.token_types() > 1) file.types.insert(file.types.end(), tokens.types.begin(), tokens.types.end());
}

Status tokenize_for_encoder(const PreparedData& data, const Tokenizer& tokenizer, const TokenParts& parts,
                            const EncoderReading& reading, int threads, const TakeTokenBlock& take) {
  TokenFile empty;
  empty.n_labels = static_cast<std::int32_t>(data.label_names().size());
  empty.vocab_size = static_cast<std::int32_t>(tokenizer.vocabulary_size());
  return make_token_rows(
      parts.size(), threads, empty,
      [&](std::size_t row, TokenFile& block) -> Status {
        const auto [id, part] = parts.at(row);
        add_encoder_row(block, tokenizer, data.dataset.texts[id], reading, data.dataset.labels[id], part, id);
        return {};
      },
      take);
}

Result<TunedPackage> package_tuned_encoder(const TuneRun& run, const ReadyModel& trained_on, const ReadyModel& served,
                                           TensorType matrices, const fs::path& package) {
  TAILOR_TRY(const SafetensorsFile weights, SafetensorsFile::open(run.directory / "weights.safetensors"));
  TAILOR_CHECK(write_head(weights, package / kHeadFile));
  TunedPackage out{served.base, tree_bytes(package / kHeadFile)};
  const auto& tensors = weights.tensors();
  const bool changed = std::any_of(tensors.begin(), tensors.end(), [](const SafeTensor& t) {
    return !std::string_view(t.name).starts_with(kHeadPrefix);
  });
  const auto add_adapter = [&](const char* name, bool counts) -> Status {
    std::error_code ignored;
    if (!fs::exists(run.directory / name, ignored)) return {};
    TAILOR_CHECK(make_directories(package / kAdapterDirectory));
    TAILOR_CHECK(tailor::copy_file(run.directory / name, package / kAdapterDirectory / name));
    if (counts) out.trained_bytes += tree_bytes(package / kAdapterDirectory / name);
    return {};
  };
  TAILOR_CHECK(add_adapter("adapter_config.json", false));
  TAILOR_CHECK(add_adapter(kAdapterWeights, true));
  TAILOR_CHECK(add_adapter(kBottleneckFile, true));
  if (!changed) return out;
  TAILOR_CHECK(write_tuned_gguf(trained_on.gguf, weights.path(), matrices, package / kTunedFile));
  if (!fs::exists(package / kAdapterDirectory / kAdapterWeights)) {  // low-rank updates are counted as such
    for (const SafeTensor& tensor : tensors) {
      if (!std::string_view(tensor.name).starts_with(kHeadPrefix)) out.trained_bytes += tensor.bytes.size();
    }
  }
  out.base = tuned_base(trained_on.base, kTunedFile);
  return out;
}

void ServedEncoder::score(std::span<const float> x, std::span<float> scores) const {
  for (std::size_t c = 0; c < weight.rows; ++c) {
    const auto w = weight.row(c);
    scores[c] = std::inner_product(x.begin(), x.end(), w.begin(), bias[c]);
  }
}

Result<ServedEncoder> open_served_encoder(const fs::path& package, const PackageManifest& manifest, std::size_t outputs,
                                          Pooling pooling, const PredictOptions& options, std::size_t max_tokens) {
  TAILOR_TRY(const SafetensorsFile head, SafetensorsFile::open(package / kHeadFile));
  TAILOR_TRY(const SafeTensor weight, head.get(kHeadWeight, "F32", 2));
  TAILOR_TRY(const SafeTensor bias, head.get(kHeadBias, "F32", 1));
  EmbedderOptions embedding{.threads = options.threads,
                            .pooling = pooling,
                            .normalise = reads_unit_vectors(head.metadata()),
                            .max_tokens = static_cast<int>(max_tokens),
                            .pairs = makes_pairs(manifest.text_template)};
  std::error_code ignored;
  if (const fs::path file = package / kAdapterDirectory / kBottleneckFile; fs::exists(file, ignored))
    embedding.bottlenecks = file;
  TAILOR_TRY(Embedder embedder, Embedder::load(base_model_path(package, manifest.base), embedding));
  const auto rows = static_cast<std::int64_t>(outputs);
  if (weight.shape[0] != rows || bias.shape[0] != rows || weight.shape[1] != embedder.dim()) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: the head does not belong to this encoder and these labels", package.string()), ""};
  }
  ServedEncoder out{std::move(embedder), Matrix(outputs, static_cast<std::size_t>(weight.shape[1])),
                    std::vector<float>(outputs)};
  std::memcpy(out.weight.data.data(), weight.bytes.data(), weight.bytes.size());
  std::memcpy(out.bias.data(), bias.bytes.data(), bias.bytes.size());
  return out;
}

Result<std::unique_ptr<Classifier>> load_tuned_encoder(const fs::path& package, const PackageManifest& manifest,
                                                       const PredictOptions& options) {
  TAILOR_TRY(ServedEncoder encoder,
             open_served_encoder(package, manifest, manifest.labels.size(), Pooling::kMean, options));
  return std::unique_ptr<Classifier>(std::make_unique<TunedEncoderClassifier>(std::move(encoder), manifest.target));
}

}  // namespace tailor
