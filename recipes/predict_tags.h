#pragma once
/// Recipe: answer texts with a package of tags, one at a time or a whole file.

#include <filesystem>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "core/result.h"
#include "core/tag_spans.h"
#include "fit/tagger.h"
#include "recipes/predict.h"

namespace tailor {

struct TagSummary {
  PackageManifest manifest;
  std::vector<TaggedRow> rows;
  std::vector<WordTags> answers;
  std::size_t compared = 0, words = 0, right = 0;  // rows of the input that have tags, and their words
  SpanCounts spans;                                // of those rows
  double seconds = 0;
};

/// Whether the package is one of this recipe.
bool answers_tags(const PackageManifest& manifest);

/// `manifest`: of read_package(). The input is a file as data/tagged_rows.h reads it; its tags, where it has some that
/// the package knows, are compared.
Result<TagSummary> predict_tags(const PredictRequest& request, PackageManifest manifest, const ProgressFn& progress,
                                const CancelToken& cancel);

/// A line a row: "row" (from 1), and fit/tag_answer.h; "expected" where the input has tags. Atomic.
Status write_tag_predictions(const std::filesystem::path& file, const TagSummary& summary);

}  // namespace tailor
