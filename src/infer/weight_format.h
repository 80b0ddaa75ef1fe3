#pragma once
/// What a model's weights in another type cost and give: speed on this machine, and how far its predictions move from
/// the original's.

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "core/cancel.h"
#include "core/result.h"
#include "model/tokenizer.h"

namespace tailor {

/// Tokens, and with mask[i] = 1 those whose prediction counts (never the first).
struct ScoredRow {
  TokenList tokens;
  std::vector<std::uint8_t> mask;
};

/// log p over the vocabulary before every counted token, rows one after the other: [counted, vocabulary].
/// Memory: 4 bytes times both.
class ReferencePredictions {
 public:
  static Result<ReferencePredictions> make(const std::filesystem::path& gguf, std::vector<ScoredRow> rows, int threads,
                                           const CancelToken& cancel);
  const std::vector<ScoredRow>& rows() const { return rows_; }
  std::size_t counted() const { return tokens_.size(); }
  std::span<const float> log_p(std::size_t i) const { return {log_p_.data() + i * vocabulary_, vocabulary_}; }
  std::int32_t token(std::size_t i) const { return tokens_[i]; }

 private:
  std::vector<ScoredRow> rows_;
  std::vector<std::int32_t> tokens_;
  std::vector<float> log_p_;
  std::size_t vocabulary_ = 0;
};

struct FormatQuality {
  std::vector<double> row_loss;  // mean -log p of a row's counted tokens, nats
  std::vector<double> row_tokens;
  double loss = 0;         // of all counted tokens
  double accuracy = 0;     // the token is the likeliest one
  double kl = 0;           // mean KL(original || this), nats a token
  double same_choice = 0;  // the likeliest token is the original's
};
Result<FormatQuality> measure_quality(const std::filesystem::path& gguf, const ReferencePredictions& reference,
                                      int threads, const CancelToken& cancel);

struct FormatSpeed {
  double prompt_tokens_per_second = 0;
  double answer_tokens_per_second = 0;  // one stream
};
/// Medians of three.
Result<FormatSpeed> measure_speed(const std::filesystem::path& gguf, int prompt_tokens, int answer_tokens, int threads,
                                  const CancelToken& cancel);

}  // namespace tailor
