#include "serve/package_backends.h"

#include <algorithm>

#include "fit/tuned_encoder.h"

namespace tailor {
namespace {

/// The queries that `chosen` says, and the places of their answers.
struct Chosen {
  std::vector<std::string> texts;
  std::vector<std::size_t> places;

  Chosen(std::span<const LabelQuery> queries, const std::function<bool(const LabelQuery&)>& chosen) {
    for (std::size_t i = 0; i < queries.size(); ++i) {
      if (!chosen(queries[i])) continue;
      texts.push_back(queries[i].text);
      places.push_back(i);
    }
  }
};

Result<std::vector<LabelAnswer>> answer_labels(Classifier& classifier, std::span<const LabelQuery> queries) {
  std::vector<LabelAnswer> out(queries.size());
  const CancelToken never;
  const Chosen whole(queries, [](const LabelQuery& q) { return !q.label_only; });
  if (!whole.texts.empty()) {
    TAILOR_TRY(const Matrix rows, classifier.probabilities(whole.texts, {}, never));
    for (std::size_t i = 0; i < whole.places.size(); ++i)
      out[whole.places[i]].probabilities.assign(rows.row(i).begin(), rows.row(i).end());
  }
  const Chosen alone(queries, [](const LabelQuery& q) { return q.label_only; });
  if (!alone.texts.empty()) {
    TAILOR_TRY(const std::vector<std::int32_t> labels, classifier.best(alone.texts, never));
    for (std::size_t i = 0; i < alone.places.size(); ++i) out[alone.places[i]].label = labels[i];
  }
  const Chosen shown(queries, [](const LabelQuery& q) { return q.nearest > 0; });
  if (!shown.texts.empty()) {
    std::size_t most = 0;
    for (const LabelQuery& query : queries) most = std::max(most, query.nearest);
    TAILOR_TRY(std::vector<std::vector<NearRow>> rows, classifier.nearest(shown.texts, most, never));
    for (std::size_t i = 0; i < shown.places.size(); ++i) {
      const std::size_t place = shown.places[i];
      rows[i].resize(std::min(rows[i].size(), queries[place].nearest));
      out[place].nearest = std::move(rows[i]);
    }
  }
  return out;
}

}  // namespace

std::shared_ptr<LabelBackend> LabelBackend::make(PackageManifest manifest, std::unique_ptr<Classifier> classifier,
                                                 bool rows, std::shared_ptr<ComputeShare> share,
                                                 BatcherOptions options) {
  auto out = std::make_shared<LabelBackend>();
  out->manifest = std::move(manifest);
  out->classifier = std::move(classifier);
  out->shows_rows = rows && out->classifier->holds_rows();
  out->batcher = std::make_unique<Batcher<LabelQuery, std::vector<LabelAnswer>>>(
      [&it = *out->classifier](std::span<const LabelQuery> queries) { return answer_labels(it, queries); },
      std::move(share), std::move(options));
  return out;
}

bool LabelBackend::pairs() const {
  return makes_pairs(manifest.text_template);
}

Result<std::shared_ptr<TagBackend>> TagBackend::load(const std::filesystem::path& package, PackageManifest manifest,
                                                     std::shared_ptr<ComputeShare> share, BatcherOptions options) {
  TAILOR_TRY(Tagger tagger, Tagger::load(package, manifest, {.threads = share->cores()}));
  auto out = std::make_shared<TagBackend>(TagBackend{std::move(manifest), std::move(tagger), nullptr});
  out->batcher = std::make_unique<Batcher<TaggedRow, std::vector<WordTags>>>(
      [&it = out->tagger](std::span<const TaggedRow> rows) { return it.tag(rows, {}, CancelToken()); },
      std::move(share), std::move(options));
  return out;
}

Result<std::shared_ptr<SpanBackend>> SpanBackend::load(const std::filesystem::path& package, PackageManifest manifest,
                                                       std::shared_ptr<ComputeShare> share, BatcherOptions options) {
  TAILOR_TRY(QuestionModel model, QuestionModel::load(package, manifest, {.threads = share->cores()}));
  auto out = std::make_shared<SpanBackend>(SpanBackend{std::move(manifest), std::move(model), nullptr});
  out->batcher = std::make_unique<Batcher<QuestionRow, std::vector<SpanAnswer>>>(
      [&it = out->model](std::span<const QuestionRow> rows) { return it.answer(rows, {}, CancelToken()); },
      std::move(share), std::move(options));
  return out;
}

}  // namespace tailor
