#pragma once
/// What answers in the place of a language model: packages of labels, of tags and of answers that stand in a text.

#include <memory>
#include <string>
#include <vector>

#include "fit/package.h"
#include "fit/question_model.h"
#include "fit/tagger.h"
#include "serve/batcher.h"

namespace tailor {

/// A text to be labelled, and what is asked about it.
struct LabelQuery {
  std::string text;
  bool label_only = false;  // the label, without probabilities
  std::size_t nearest = 0;  // so many training rows beside it
};
struct LabelAnswer {
  std::vector<float> probabilities;  // as Classifier::probabilities(); of label_only: none
  std::int32_t label = -1;           // of label_only
  std::vector<NearRow> nearest;
};
inline std::size_t bytes_of(const LabelQuery& query) {
  return query.text.size();
}
inline std::size_t bytes_of(const TaggedRow& row) {
  return row.text.size();
}
inline std::size_t bytes_of(const QuestionRow& row) {
  return row.question.size() + row.context.size();
}

/// Answers with a label, or several, or a number.
struct LabelBackend {
  PackageManifest manifest;
  std::unique_ptr<Classifier> classifier;
  bool shows_rows = false;                                                 // the nearest training rows may be asked for
  std::unique_ptr<Batcher<LabelQuery, std::vector<LabelAnswer>>> batcher;  // after the classifier: ends before it

  /// `rows`: whether those that the package holds may be shown.
  static std::shared_ptr<LabelBackend> make(PackageManifest manifest, std::unique_ptr<Classifier> classifier, bool rows,
                                            std::shared_ptr<ComputeShare> share, BatcherOptions options = {});
  bool one_label() const { return manifest.target.kind == PackageTarget::Kind::kLabel; }
  /// Whether it answers pairs of texts (model/tokenizer.h, kPairSeparator).
  bool pairs() const;
};

/// Gives each word of a text a tag.
struct TagBackend {
  PackageManifest manifest;
  Tagger tagger;
  std::unique_ptr<Batcher<TaggedRow, std::vector<WordTags>>> batcher;

  /// `manifest`: of read_package().
  static Result<std::shared_ptr<TagBackend>> load(const std::filesystem::path& package, PackageManifest manifest,
                                                  std::shared_ptr<ComputeShare> share, BatcherOptions options = {});
};

/// Answers a question with a piece of a text.
struct SpanBackend {
  PackageManifest manifest;
  QuestionModel model;
  std::unique_ptr<Batcher<QuestionRow, std::vector<SpanAnswer>>> batcher;

  static Result<std::shared_ptr<SpanBackend>> load(const std::filesystem::path& package, PackageManifest manifest,
                                                   std::shared_ptr<ComputeShare> share, BatcherOptions options = {});
};

}  // namespace tailor
