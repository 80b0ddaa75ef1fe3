#pragma once
/// Encoders tuned by tailor-tune: the rows they learn from, and how they are served: the tuned (or merged) encoder as a
/// GGUF file, the head as one linear layer on its mean-pooled output.

#include <cstdint>
#include <filesystem>
#include <memory>

#include "core/token_file.h"
#include "fit/classifier.h"
#include "fit/token_rows.h"
#include "fit/tuned_model.h"
#include "infer/embedder.h"
#include "model/gguf_file.h"
#include "model/tokenizer.h"

namespace tailor {

inline constexpr std::size_t kEncoderTokens = 256;  // longer texts are cut, in training as in serving

/// Whether this template of a text makes a pair of texts (model/tokenizer.h, kPairSeparator).
bool makes_pairs(std::string_view text_template);

/// How texts become rows of tokens.
struct EncoderReading {
  bool pairs = false;
  std::size_t limit = kEncoderTokens;      // tokens of a row
  std::size_t positions = kEncoderTokens;  // that the model has
};
/// `limit` is kEncoderTokens, or the positions of the model in `gguf` where it has fewer.
Result<EncoderReading> encoder_reading(const std::filesystem::path& gguf, std::string_view text_template);

/// Adds the tokens of a text, or of both texts of a pair with their token types where the model has two.
void add_encoder_row(TokenFile& file, const Tokenizer& tokenizer, std::string_view text, const EncoderReading& reading,
                     std::int32_t label, TokenPart part, std::int64_t row_id);

/// Hands on the rows of the parts, block by block. Row numbers are ids of the data.
Status tokenize_for_encoder(const PreparedData& data, const Tokenizer& tokenizer, const TokenParts& parts,
                            const EncoderReading& reading, int threads, const TakeTokenBlock& take);

/// Writes the head, and where the encoder was changed the whole of it (matrices as `matrices`) and its adapter, into
/// `package`. A head on an untouched encoder is served on `served`.
Result<TunedPackage> package_tuned_encoder(const TuneRun& run, const ReadyModel& trained_on, const ReadyModel& served,
                                           TensorType matrices, const std::filesystem::path& package);

/// What answers: an encoder, and a linear layer on its vectors.
struct ServedEncoder {
  Embedder embedder;
  Matrix weight;  // [outputs, dim]
  std::vector<float> bias;

  /// scores[o] = weight[o] · x + bias[o]
  void score(std::span<const float> x, std::span<float> scores) const;
};
/// Of a package; an error where the layer does not have `outputs`.
Result<ServedEncoder> open_served_encoder(const std::filesystem::path& package, const PackageManifest& manifest,
                                          std::size_t outputs, Pooling pooling, const PredictOptions& options,
                                          std::size_t max_tokens = kEncoderTokens);

/// Answers as the manifest's `target` says: probabilities of one label, of each label by itself, or a number in its own
/// unit ([texts, 1]).
Result<std::unique_ptr<Classifier>> load_tuned_encoder(const std::filesystem::path& package,
                                                       const PackageManifest& manifest, const PredictOptions& options);

}  // namespace tailor
