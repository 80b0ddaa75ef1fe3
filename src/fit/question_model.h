#pragma once
/// A package that answers a question with a piece of a text: the tuned encoder over question and text, and two scores a
/// token. Texts longer than the encoder reads are searched window by window.

#include <filesystem>
#include <span>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "core/result.h"
#include "fit/package.h"
#include "fit/question_data.h"
#include "fit/tuned_encoder.h"

namespace tailor {

/// Threads: answer() one call at a time an object; tokenizer() any.
class QuestionModel {
 public:
  /// `manifest`: of read_package(). Errors: a package that does not answer so.
  static Result<QuestionModel> load(const std::filesystem::path& package, const PackageManifest& manifest,
                                    const PredictOptions& options);

  Result<std::vector<SpanAnswer>> answer(std::span<const QuestionRow> rows, const ProgressFn& progress,
                                         const CancelToken& cancel);
  const Tokenizer& tokenizer() const { return encoder_.embedder.tokenizer(); }

 private:
  QuestionModel(ServedEncoder encoder, bool no_answer) : encoder_(std::move(encoder)), no_answer_(no_answer) {}
  ServedEncoder encoder_;
  bool no_answer_;
};

}  // namespace tailor
