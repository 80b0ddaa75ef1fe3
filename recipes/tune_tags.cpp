#include "recipes/tune_tags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/files.h"
#include "core/safetensors.h"
#include "core/stopwatch.h"
#include "core/system.h"
#include "eval/span_scores.h"
#include "fit/serving.h"
#include "fit/tag_answer.h"
#include "fit/tag_data.h"
#include "fit/tagger.h"
#include "recipes/encoder_task.h"
#include "recipes/run_directory.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPredictions = "test_predictions.jsonl";

class TagRecipe {
 public:
  TagRecipe(TuneOptions options, RunUi& ui, const CancelToken& cancel)
      : options_(std::move(options)), ui_(ui), cancel_(cancel) {}

  Status begin();  // model, method, rows
  Status write_start(const std::string& command_line) const;
  Status same_data(const Json& run) const {
    return require_unchanged(data_.files, data_.file_hashes, run.at("file_hashes").get<std::vector<std::string>>());
  }
  Status train();
  Status package();
  Status prove();  // the test part, as trained and as served
  Result<TuneSummary> finish();

 private:
  RunDirectory run_directory() const { return {options_.out}; }
  int threads() const { return options_.threads > 0 ? options_.threads : system_info().cores; }
  bool spans() const { return data_.scheme.iob2; }
  ProgressFn progress() const {
    return [this](const Progress& p) { ui_.progress(p, watch_.seconds(), 0); };
  }
  TagRows truth() const;  // of the test rows
  Json scores(const std::vector<WordTags>& answers) const;
  Status read_answers();
  Status write_predictions() const;

  TuneOptions options_;
  RunUi& ui_;
  const CancelToken& cancel_;
  const Stopwatch watch_;
  TunedBy by_;
  PreparedTags data_;
  TrainedTask task_;
  std::vector<WordTags> trained_, served_;  // of the test rows
  Json served_json_;
};

Status TagRecipe::begin() {
  TAILOR_TRY(by_, choose_for_task(options_));
  ui_.stage("reading the data");
  TAILOR_TRY(data_, prepare_tags(options_));
  for (const std::string& warning : data_.warnings) ui_.warning(warning);
  if (!spans() && options_.metric == "entity_f1") {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--metric entity_f1 needs tags that mark spans, such as B-person; {} has \"{}\"",
                             options_.data.string(), data_.scheme.names.front()),
                 "leave it out"};
  }
  return {};
}

Status TagRecipe::write_start(const std::string& command_line) const {
  TAILOR_CHECK(make_directories(options_.out));
  return write_run_json(run_directory().options(), kTuneRunFormat, kTuneRunVersion, command_line, to_json(options_),
                        data_.files, data_.file_hashes);
}

Status TagRecipe::train() {
  TAILOR_TRY(task_, train_task(
                        options_, by_, threads(), !data_.rows_of(TokenPart::kValidation).empty(),
                        spans() ? "entity_f1" : "accuracy",
                        [&](const Tokenizer& tokenizer, const EncoderReading& reading) {
                          return tokenize_tags(data_, tokenizer, reading.limit);
                        },
                        ui_, progress(), cancel_));
  return {};
}

Status TagRecipe::package() {
  ui_.stage("making the package");
  PackageManifest manifest;
  manifest.serving = kServeTags;
  manifest.target.kind = PackageTarget::Kind::kTags;
  manifest.target.spans = spans();
  manifest.labels = data_.scheme.label_names();
  return package_task(options_, by_, task_, {data_.files, data_.file_hashes, data_.rows_of(TokenPart::kTrain).size()},
                      std::move(manifest));
}

TagRows TagRecipe::truth() const {
  TagRows out;
  for (const auto r : data_.rows_of(TokenPart::kTest)) out.push_back(data_.tags[r]);
  return out;
}

Json TagRecipe::scores(const std::vector<WordTags>& answers) const {
  TagRows said;
  for (const WordTags& row : answers) said.push_back(row.tags);
  return to_json(bootstrap_tags(truth(), said, {.seed = options_.seed}), spans());
}

/// The trainer's answers of the test rows: its windows joined.
Status TagRecipe::read_answers() {
  const fs::path file = task_.run.directory / "test_predictions.safetensors";
  TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(file));
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

/// A line a test row, as the trainer computed it.
Status TagRecipe::write_predictions() const {
  const auto rows = data_.rows_of(TokenPart::kTest);
  const auto labels = data_.scheme.label_names();
  std::string lines;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const TaggedRow& row = data_.rows[rows[i]];
    Json line{{"line", row.line}};
    line.update(tag_answer(row, trained_[i], labels, spans()));
    line["expected"] = tag_names(data_.tags[rows[i]], labels);
    lines += dump_json(line) + "\n";
  }
  return write_file_atomic(options_.out / kPredictions, lines);
}

Status TagRecipe::prove() {
  TAILOR_CHECK(read_answers());
  TAILOR_CHECK(write_predictions());
  ui_.stage("asking the package");
  const fs::path package = run_directory().package();
  TAILOR_TRY(PackageManifest manifest, read_package(package));
  TAILOR_TRY(Tagger tagger, Tagger::load(package, manifest, {.threads = threads()}));
  std::vector<TaggedRow> rows;
  for (const auto r : data_.rows_of(TokenPart::kTest)) rows.push_back(data_.rows[r]);
  const Stopwatch watch;
  TAILOR_TRY(served_, tagger.tag(rows, progress(), cancel_));
  const double seconds = watch.seconds();
  std::size_t words = 0, same = 0, same_rows = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t before = same;
    for (std::size_t w = 0; w < served_[i].tags.size(); ++w) same += served_[i].tags[w] == trained_[i].tags[w] ? 1 : 0;
    words += served_[i].tags.size();
    same_rows += same - before == served_[i].tags.size() ? 1 : 0;
  }
  served_json_ = Json{{"n_scored", rows.size()},
                      {"words", words},
                      {"same_tags", same},
                      {"same_rows", same_rows},
                      {"metrics", scores(served_)},
                      {"seconds_per_row", seconds / static_cast<double>(std::max<std::size_t>(1, rows.size()))},
                      {"package_bytes", tree_bytes(package)}};
  Json plain{{"n_scored", rows.size()}};
  for (const auto& [metric, value] : served_json_.at("metrics").items()) plain[metric] = value.at("value");
  manifest.scores = std::move(plain);
  return close_package(package, std::move(manifest), /*include_base_model=*/true);
}

Result<TuneSummary> TagRecipe::finish() {
  Json result = training_figures(by_, options_, threads(), task_.run.result);
  result["task"] = options_.task;
  result["tags"] = Json{{"spans", spans()}, {"names", data_.scheme.names}};
  const auto rows = [&](TokenPart part) { return data_.rows_of(part).size(); };
  result["test"] =
      Json{{"n_scored", rows(TokenPart::kTest)}, {"words", served_json_.at("words")}, {"metrics", scores(trained_)}};
  if (spans()) {
    TagRows said;
    for (const WordTags& row : trained_) said.push_back(row.tags);
    const auto counts = count_by_type(truth(), said, data_.scheme.names.size());
    for (std::size_t t = 0; t < counts.size(); ++t) {
      result["test"]["by_type"][data_.scheme.names[t]] = Json{{"precision", counts[t].precision()},
                                                              {"recall", counts[t].recall()},
                                                              {"f1", counts[t].f1()},
                                                              {"spans", counts[t].truth}};
    }
  }
  result["served"] = served_json_;
  result["data"] = Json{{"files", data_.files}, {"rows", data_.rows.size()}, {"labels", data_.scheme.label_names()}};
  result["split"] = Json{{"train", rows(TokenPart::kTrain)},
                         {"validation", rows(TokenPart::kValidation)},
                         {"test", rows(TokenPart::kTest)}};
  Json files{"result.json", kPredictions, "package", "log.txt"};
  TAILOR_CHECK(keep_hugging_face(options_, by_, task_.run, files));
  return finish_tune_run(options_.out, task_.run, watch_.seconds(), std::move(files), std::move(result));
}

Result<TuneSummary> go_through(TagRecipe& recipe) {
  TAILOR_CHECK(recipe.train());
  TAILOR_CHECK(recipe.package());
  TAILOR_CHECK(recipe.prove());
  return recipe.finish();
}

}  // namespace

bool tunes_tags(const TuneOptions& options) {
  return options.task == kTaskTokens;
}

Result<TuneSummary> tune_tags(TuneOptions options, const std::string& command_line, RunUi& ui,
                              const CancelToken& cancel) {
  TagRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.begin());
  TAILOR_CHECK(recipe.write_start(command_line));
  return go_through(recipe);
}

Result<TuneSummary> resume_tags(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel) {
  TagRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.begin());
  TAILOR_CHECK(recipe.same_data(run));
  return go_through(recipe);
}

}  // namespace tailor
