#pragma once
/// A package that answers with a tag for each word: the tuned encoder, one linear layer on the state of each word's
/// first token. Texts longer than the encoder reads are answered by windows that overlap.

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "core/result.h"
#include "data/tagged_rows.h"
#include "fit/package.h"
#include "fit/tuned_encoder.h"

namespace tailor {

struct WordTags {
  std::vector<std::int32_t> tags;    // place in the manifest's labels, one a word
  std::vector<float> probabilities;  // of that tag
};

/// Threads: tag() one call at a time an object; tokenizer() any.
class Tagger {
 public:
  /// `manifest`: of read_package(). Errors: a package that does not answer with tags.
  static Result<Tagger> load(const std::filesystem::path& package, const PackageManifest& manifest,
                             const PredictOptions& options);

  /// Of each row's words; their tags, where they have some, are not looked at.
  Result<std::vector<WordTags>> tag(std::span<const TaggedRow> rows, const ProgressFn& progress,
                                    const CancelToken& cancel);
  const Tokenizer& tokenizer() const { return encoder_.embedder.tokenizer(); }

 private:
  explicit Tagger(ServedEncoder encoder) : encoder_(std::move(encoder)) {}
  ServedEncoder encoder_;
};

}  // namespace tailor
