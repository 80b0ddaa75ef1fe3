#include "recipes/tune_tags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/safetensors.h"
#include "eval/span_scores.h"
#include "fit/serving.h"
#include "fit/tag_answer.h"
#include "fit/tag_data.h"
#include "fit/tagger.h"

namespace tailor {
namespace {

class TagTask final : public EncoderTask {
 public:
  using EncoderTask::EncoderTask;

 private:
  Status read() override;
  const SplitData& data() const override { return data_; }
  std::string metric() const override { return spans() ? "entity_f1" : "accuracy"; }
  TokenFile tokenize(const Tokenizer& tokenizer, const EncoderReading& reading) const override {
    return tokenize_tags(data_, tokenizer, reading.limit);
  }
  Status describe(PackageManifest& manifest) override;
  Status read_answers() override;
  Json prediction(std::size_t test_row) const override;
  Result<Answered> ask(const PackageManifest& manifest) override;
  void report(Json& result) const override;

  bool spans() const { return data_.scheme.iob2; }
  TagRows truth() const;  // of the test rows
  Json scores(const std::vector<WordTags>& answers) const;

  PreparedTags data_;
  std::vector<std::uint32_t> test_;
  std::vector<WordTags> trained_;  // of the test rows
};

Status TagTask::read() {
  TAILOR_TRY(data_, prepare_tags(options()));
  test_ = data_.rows_of(TokenPart::kTest);
  if (!spans() && options().metric == "entity_f1") {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--metric entity_f1 needs tags that mark spans, such as B-person; {} has \"{}\"",
                             options().data.string(), data_.scheme.names.front()),
                 "leave it out"};
  }
  return {};
}

Status TagTask::describe(PackageManifest& manifest) {
  manifest.serving = kServeTags;
  manifest.target.kind = PackageTarget::Kind::kTags;
  manifest.target.spans = spans();
  manifest.labels = data_.scheme.label_names();
  return {};
}

TagRows TagTask::truth() const {
  TagRows out;
  for (const auto r : test_) out.push_back(data_.tags[r]);
  return out;
}

TagRows tags_of(const std::vector<WordTags>& answers) {
  TagRows out;
  for (const WordTags& row : answers) out.push_back(row.tags);
  return out;
}

Json TagTask::scores(const std::vector<WordTags>& answers) const {
  return to_json(bootstrap_tags(truth(), tags_of(answers), {.seed = options().seed}), spans());
}

/// The windows of a row joined.
Status TagTask::read_answers() {
  TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(trained().directory / "test_predictions.safetensors"));
  TAILOR_TRY(const SafeTensor p, stored.get("probabilities", "F32", 2));
  TAILOR_TRY(const SafeTensor row_ids, stored.get("row_ids", "I64", 1));
  TAILOR_TRY(const SafeTensor ends, stored.get("offsets", "I64", 1));
  std::vector<std::int64_t> ids(static_cast<std::size_t>(row_ids.shape[0])), offsets(ids.size() + 1);
  std::memcpy(ids.data(), row_ids.bytes.data(), row_ids.bytes.size());
  std::memcpy(offsets.data(), ends.bytes.data(), ends.bytes.size());
  const auto width = static_cast<std::size_t>(p.shape[1]);
  std::vector<float> row(width);
  std::int64_t last = -1;
  trained_.clear();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] != last) trained_.emplace_back();
    last = ids[i];
    for (auto unit = static_cast<std::size_t>(offsets[i]); unit < static_cast<std::size_t>(offsets[i + 1]); ++unit) {
      std::memcpy(row.data(), p.bytes.data() + unit * width * sizeof(float), width * sizeof(float));
      const auto best = std::max_element(row.begin(), row.end());
      trained_.back().tags.push_back(static_cast<std::int32_t>(best - row.begin()));
      trained_.back().probabilities.push_back(*best);
    }
  }
  return {};
}

Json TagTask::prediction(std::size_t test_row) const {
  const TaggedRow& row = data_.rows[test_[test_row]];
  const auto labels = data_.scheme.label_names();
  Json line{{"line", row.line}};
  line.update(tag_answer(row, trained_[test_row], labels, spans()));
  line["expected"] = tag_names(data_.tags[test_[test_row]], labels);
  return line;
}

Result<EncoderTask::Answered> TagTask::ask(const PackageManifest& manifest) {
  TAILOR_TRY(Tagger tagger, Tagger::load(package_directory(), manifest, {.threads = threads()}));
  std::vector<TaggedRow> rows;
  for (const auto r : test_) rows.push_back(data_.rows[r]);
  const Stopwatch watch;
  TAILOR_TRY(const std::vector<WordTags> served, tagger.tag(rows, progress(), cancel()));
  const double seconds = watch.seconds();
  std::size_t words = 0, same = 0, same_rows = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t before = same;
    for (std::size_t w = 0; w < served[i].tags.size(); ++w) same += served[i].tags[w] == trained_[i].tags[w] ? 1 : 0;
    words += served[i].tags.size();
    same_rows += same - before == served[i].tags.size() ? 1 : 0;
  }
  return Answered{Json{{"words", words}, {"same_tags", same}, {"same_rows", same_rows}, {"metrics", scores(served)}},
                  seconds};
}

void TagTask::report(Json& result) const {
  std::size_t words = 0;
  for (const WordTags& row : trained_) words += row.tags.size();
  result["tags"] = Json{{"spans", spans()}, {"names", data_.scheme.names}};
  result["test"] = Json{{"words", words}, {"metrics", scores(trained_)}};
  result["data"]["labels"] = data_.scheme.label_names();
  if (!spans()) return;
  const auto counts = count_by_type(truth(), tags_of(trained_), data_.scheme.names.size());
  for (std::size_t t = 0; t < counts.size(); ++t) {
    result["test"]["by_type"][data_.scheme.names[t]] = Json{{"precision", counts[t].precision()},
                                                            {"recall", counts[t].recall()},
                                                            {"f1", counts[t].f1()},
                                                            {"spans", counts[t].truth}};
  }
}

}  // namespace

bool tunes_tags(const TuneOptions& options) {
  return options.task == kTaskTokens;
}

std::unique_ptr<EncoderTask> tag_task(TuneOptions options, RunUi& ui, const CancelToken& cancel) {
  return std::make_unique<TagTask>(std::move(options), ui, cancel);
}

}  // namespace tailor
