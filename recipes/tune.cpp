#include "recipes/tune.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/files.h"
#include "core/hash.h"
#include "core/stopwatch.h"
#include "core/system.h"
#include "core/token_file.h"
#include "data/split_manifest.h"
#include "eval/paired.h"
#include "fit/head_start.h"
#include "fit/label_names.h"
#include "fit/package.h"
#include "fit/paths.h"
#include "fit/ready_model.h"
#include "fit/serving.h"
#include "fit/trial.h"
#include "fit/tuned_decoder.h"
#include "fit/tuned_encoder.h"
#include "model/merge_adapter.h"
#include "model/merge_peft.h"
#include "recipes/run_directory.h"
#include "recipes/tune_questions.h"
#include "recipes/tune_steps.h"
#include "recipes/tune_tags.h"
#include "recipes/tune_targets.h"
#include "recipes/tune_teacher.h"
#include "recipes/tune_text.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDecoderValidationRows = 200;  // a decoder scores every label of every row
constexpr double kUsualC = 10;                       // of the head's start, where no row can be held out to choose it

/// The state of a run while the recipe goes through its steps.
class TuneRecipe {
 public:
  TuneRecipe(TuneOptions options, RunUi& ui, const CancelToken& cancel)
      : options_(std::move(options)), ui_(ui), cancel_(cancel) {}

  Status choose_model();
  Status read_data();  // of a new run
  Status write_start(const std::string& command_line) const;
  Status read_data_again(const Json& run);
  Status make_ready();
  Status teach();  // method distill
  Status train();
  Status package(TensorType matrices = TensorType::kF16);
  Status prove();  // the test part, as trained and as served
  Result<TuneSummary> finish();

 private:
  RunDirectory run_directory() const { return {options_.out}; }
  int threads() const { return options_.threads > 0 ? options_.threads : system_info().cores; }
  bool encoder() const { return by_.model.kind == ModelKind::kEncoder; }
  int classes() const { return static_cast<int>(data_.label_names().size()); }
  ProgressFn progress() const {
    return [this](const Progress& p) { ui_.progress(p, watch_.seconds(), 0); };
  }
  /// Writes the rows that the trainer reads; how many it is to learn from.
  Result<std::size_t> write_tokens(TokenParts parts, const fs::path& to);
  /// The head reads vectors of length 1.
  bool unit_vectors() const { return by_.method.name == "features" || by_.method.name == "contrastive"; }
  bool distills() const { return by_.method.name == "distill"; }
  Json job() const;
  Status choose_label_names();
  Result<LabelledVectors> vectors_of(Embedder& embedder, const RowSet& rows) const;
  Result<LabelledVectors> vectors_of_names(Embedder& embedder) const;
  Result<Embedder> embedder(const fs::path& gguf) const;
  /// Writes the head that training begins with; C is chosen on `held_out` where it is 0.
  Status start_head(const RowSet& rows, const RowSet& held_out, double c, const fs::path& to);
  /// Trains once more, on training and validation rows, for as many epochs as were the best; `learnt`: rows of the
  /// first.
  Status refit(Json job, std::size_t learnt);
  /// Asks the package for the test rows, and writes its figures into its manifest.
  Result<Json> ask(std::string_view name);
  /// The encoder whose vectors the head sees first: the untouched one, or with the adapter that is gone on with.
  Result<fs::path> first_encoder();

  TuneOptions options_;
  RunUi& ui_;
  const CancelToken& cancel_;
  TrainingLog log_ = training_log(options_.out, /*labels=*/true);
  const Stopwatch watch_;
  TunedBy by_;
  PreparedData data_;
  DataReport report_;
  ReadyModel base_, served_;  // what is trained on; what an untouched base is served as
  TokenParts parts_;
  Taught taught_;
  std::vector<std::string> names_;  // of the labels, as texts to learn from; empty: they are not
  TuneRun run_;                     // whose answers and head are packaged
  Json figures_;                    // result.json of the training
  Json refit_;                      // what of the second one is reported; null: there was none
  double head_c_ = 0;               // of the head's start
  fs::path first_encoder_;          // with the adapter; empty: not made yet
  Predictions trained_;
  ScoreIntervals scores_;
  ProvenPackage proven_;
};

Status TuneRecipe::choose_model() {
  TAILOR_TRY(by_, choose_tuning(options_));
  if (encoder()) {
    if (!options_.export_hugging_face || by_.method.name != "contrastive") return {};
    return Error{ErrorCode::kInvalidArgument, "--export-hugging-face does not go with method contrastive",
                 "the package holds the tuned encoder as tuned.gguf"};
  }
  if (makes_pairs(options_.text_template)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--text-pair is for encoders, {} is a decoder", by_.model.id),
                 "make one text of both columns with --template"};
  }
  if (options_.export_hugging_face) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--export-hugging-face is for encoders, {} is a decoder", by_.model.id), "leave it out"};
  }
  return {};
}

Status TuneRecipe::read_data() {
  ui_.stage("reading the data");
  Leaks leaks;
  TAILOR_TRY(data_, prepare_data(options_, report_, leaks));
  for (const auto& finding : report_.findings) {
    if (finding.severity != Severity::kNote) ui_.warning(finding.message);
  }
  return {};
}

Status TuneRecipe::write_start(const std::string& command_line) const {
  TAILOR_CHECK(make_directories(options_.out));
  TAILOR_CHECK(write_split_manifest(run_directory().split(), data_.dataset, data_.split));
  TAILOR_CHECK(write_json_atomic(run_directory().data_report(), to_json(report_)));
  std::vector<std::string> files = data_.dataset.files, hashes = data_.file_hashes;
  if (!options_.unlabelled_file.empty()) {
    files.push_back(options_.unlabelled_file.string());
    TAILOR_TRY(std::string hash, sha256_file(options_.unlabelled_file));
    hashes.push_back(std::move(hash));
  }
  return write_run_json(run_directory().options(), kTuneRunFormat, kTuneRunVersion, command_line, to_json(options_),
                        files, hashes);
}

Status TuneRecipe::read_data_again(const Json& run) {
  ui_.stage("reading the data again");
  const auto recorded = run.at("file_hashes").get<std::vector<std::string>>();
  TAILOR_TRY(data_, reload_data(options_, run_directory().split(), recorded));
  if (options_.unlabelled_file.empty()) return {};
  TAILOR_TRY(std::string hash, sha256_file(options_.unlabelled_file));
  return require_unchanged({options_.unlabelled_file.string()}, {std::move(hash)}, {recorded.back()});
}

Status TuneRecipe::make_ready() {
  parts_ = {data_.train(), data_.validation(), data_.test()};
  if (data_.kfold())
    ui_.note(
        "Fewer than 20 rows in a class: no validation part is split off, and the last values of the training are "
        "kept.");
  if (!encoder())
    parts_.validation = stratified_sample(data_, parts_.validation, kDecoderValidationRows, options_.seed + 2);
  ui_.stage(fmt::format("making {} ready", by_.model.id));
  TAILOR_TRY(served_, ready_model(by_.model, serving_use(options_, by_.model), progress()));
  base_ = served_;
  if (encoder() || by_.method.own_blocks) {
    TAILOR_TRY(base_, ready_model(by_.model, ModelUse::kTraining, progress()));
  }
  TAILOR_TRY(served_, with_added_tokens(std::move(served_), options_.added_tokens));
  TAILOR_TRY(base_, with_added_tokens(std::move(base_), options_.added_tokens));
  return {};
}

Status TuneRecipe::teach() {
  if (!distills()) return {};
  TAILOR_TRY(taught_, ask_teacher(options_, data_, parts_, threads(), ui_, progress(), cancel_));
  return {};
}

Result<std::size_t> TuneRecipe::write_tokens(TokenParts parts, const fs::path& to) {
  ui_.stage("tokenising");
  parts.train.ids.insert(parts.train.ids.end(), taught_.ids.begin(), taught_.ids.end());
  TokenFileWriter writer(to);
  std::size_t learnt = 0;
  const auto write = [&](TokenFile& block) {
    learnt += static_cast<std::size_t>(std::count(block.parts.begin(), block.parts.end(), TokenPart::kTrain));
    if (distills()) add_soft_targets(taught_, block);
    return writer.append(block);
  };
  if (encoder()) {
    TAILOR_TRY(const Tokenizer tokenizer, Tokenizer::load(base_.gguf));
    TAILOR_TRY(const EncoderReading reading, encoder_reading(base_.gguf, options_.text_template));
    TAILOR_CHECK(tokenize_for_encoder(data_, tokenizer, parts, reading, threads(), write));
    if (!names_.empty()) {
      TokenFile names;
      names.n_labels = classes();
      names.vocab_size = static_cast<std::int32_t>(tokenizer.vocabulary_size());
      for (std::size_t l = 0; l < names_.size(); ++l) {
        const auto label = static_cast<std::int32_t>(l);
        add_encoder_row(names, tokenizer, names_[l], reading, label, TokenPart::kTrain, /*row_id=*/-1 - label);
      }
      TAILOR_CHECK(write(names));
    }
  } else {
    TAILOR_CHECK(tokenize_for_decoder(data_, base_, parts, threads(), write));
  }
  TAILOR_CHECK(writer.finish());
  return learnt;
}

Result<Embedder> TuneRecipe::embedder(const fs::path& gguf) const {
  return Embedder::load(gguf, {.threads = threads(),
                               .pooling = Pooling::kMean,
                               .normalise = unit_vectors(),
                               .max_tokens = static_cast<int>(kEncoderTokens),
                               .pairs = makes_pairs(options_.text_template)});
}

Result<LabelledVectors> TuneRecipe::vectors_of(Embedder& embedder, const RowSet& rows) const {
  TAILOR_TRY(Matrix x, embedder.embed(data_.texts_of(rows), progress(), cancel_));
  return LabelledVectors{std::move(x), data_.labels_of(rows)};
}

Result<LabelledVectors> TuneRecipe::vectors_of_names(Embedder& embedder) const {
  TAILOR_TRY(Matrix x, embedder.embed(names_, {}, cancel_));
  LabelledVectors out{std::move(x), std::vector<int>(names_.size())};
  std::iota(out.labels.begin(), out.labels.end(), 0);
  return out;
}

/// Whether the labels' names are texts to learn from: measured on the untouched encoder's vectors.
Status TuneRecipe::choose_label_names() {
  const bool always = options_.label_names == "always";
  if (options_.label_names == "never" || !encoder() || distills() || !(unit_vectors() || always)) return {};
  const auto unused = [&](std::string why) -> Status {
    if (!always) return {};
    return Error{ErrorCode::kInvalidArgument, "the labels' names cannot be learnt from: " + why, "leave it to auto"};
  };
  if (makes_pairs(options_.text_template)) return unused("texts are pairs here");
  names_ = label_words(data_.label_names());
  if (names_.empty()) return unused("they are no words, or two of them are alike");
  if (always) return {};
  const std::size_t rows = parts_.train.size();
  if (rows > kMostRowsForNames * names_.size()) {
    names_.clear();
    return {};
  }
  ui_.stage("trying the labels' names");
  std::vector<RowSplit> splits;
  RowSet all = parts_.train;
  if (parts_.validation.size() > 0) {
    RowSplit& split = splits.emplace_back();
    for (std::size_t i = 0; i < parts_.train.size(); ++i) split.train.push_back(i);
    for (const auto id : parts_.validation.ids) {
      split.validation.push_back(all.ids.size());
      all.ids.push_back(id);
    }
  } else {
    for (int f = 0; f < data_.split.folds; ++f) {
      RowSplit& split = splits.emplace_back();
      for (std::size_t i = 0; i < all.ids.size(); ++i)
        (data_.split.fold[all.ids[i]] == f ? split.validation : split.train).push_back(i);
    }
  }
  TAILOR_TRY(Embedder untouched, embedder(served_.gguf));
  TAILOR_TRY(const LabelledVectors vectors, vectors_of(untouched, all));
  TAILOR_TRY(const LabelledVectors of_names, vectors_of_names(untouched));
  TAILOR_TRY(const bool help, label_names_help(vectors, of_names, splits, classes(), kUsualC, threads(), cancel_));
  if (help)
    ui_.note("The words of the labels' names are learnt from too: they help on rows held out (--label-names).");
  else
    names_.clear();
  return {};
}

Result<fs::path> TuneRecipe::first_encoder() {
  if (options_.adapter.empty()) return served_.gguf;
  if (!first_encoder_.empty()) return first_encoder_;
  const fs::path encoder = options_.out / kTrainDirectory / "with-adapter.gguf";
  std::error_code ignored;
  if (!fs::is_directory(options_.adapter, ignored)) {
    TAILOR_CHECK(merge_adapter(served_.gguf, options_.adapter, encoder));
    return first_encoder_ = encoder;
  }
  TAILOR_TRY(const PeftMerge merged, merge_peft_adapter(served_.gguf, options_.adapter, encoder));
  if (!merged.left_out.empty()) {
    ui_.note(fmt::format("Of the adapter {} stand behind the encoder and are left out; the output layer begins anew.",
                         fmt::join(merged.left_out, ", ")));
  }
  return first_encoder_ = encoder;
}

Status TuneRecipe::start_head(const RowSet& rows, const RowSet& held_out, double c, const fs::path& to) {
  ui_.stage("fitting the head's start");
  TAILOR_TRY(const fs::path encoder, first_encoder());
  TAILOR_TRY(Embedder embedder, this->embedder(encoder));
  TAILOR_TRY(LabelledVectors train, vectors_of(embedder, rows));
  if (!names_.empty()) {
    TAILOR_TRY(const LabelledVectors of_names, vectors_of_names(embedder));
    train = joined(train, of_names);
  }
  LabelledVectors judging;
  if (c <= 0) {
    TAILOR_TRY(judging, vectors_of(embedder, held_out));
  }
  TAILOR_TRY(const HeadStart begun,
             write_head_start(train, judging, classes(), c, threads(), progress(), cancel_, unit_vectors(), to));
  head_c_ = begun.c;
  return {};
}

Json TuneRecipe::job() const {
  Json job = tune_job(options_, by_.method.name, parts_.validation.size() > 0);
  job["task"] = encoder() ? "sequence-classification" : "causal-lm-labels";
  job["base"] = base_.gguf.string();
  job["n_labels"] = classes();
  job["metric"] = options_.metric.empty() ? "accuracy" : options_.metric;
  job["export_merged"] = true;
  return job;
}

Status TuneRecipe::train() {
  const fs::path directory = options_.out / kTrainDirectory;
  TAILOR_CHECK(make_directories(directory));
  TAILOR_CHECK(choose_label_names());
  TAILOR_TRY(const std::size_t learnt, write_tokens(parts_, options_.out / kTokensFile));
  const bool fits = by_.method.name == "features";  // no step changes its head
  Json job = this->job();
  if (!fits) {
    TAILOR_TRY(job["settings"], job_settings(options_, base_.gguf));
  }
  if (options_.export_hugging_face) job["export_hugging_face"] = true;
  if (encoder() && (options_.head_start || unit_vectors())) {
    const fs::path head = directory / "start-head.safetensors";
    const bool can_choose = parts_.validation.size() > 0;
    TAILOR_CHECK(start_head(parts_.train, parts_.validation, can_choose ? 0 : kUsualC, head));
    job["head"] = fs::absolute(head).string();
  }
  TAILOR_TRY(run_, run_training(job, directory / "run", threads(), "training", ui_, progress(), cancel_, &log_));
  figures_ = run_.result;
  return options_.refit ? refit(std::move(job), learnt) : Status{};
}

Status TuneRecipe::refit(Json job, std::size_t learnt) {
  if (parts_.validation.size() == 0) {
    ui_.note("--refit: no row is held out, so there is nothing to add to the training.");
    return {};
  }
  const fs::path directory = options_.out / kTrainDirectory;
  const Json& best = figures_.at("best");
  const Json& used = figures_.at("settings");
  const double steps_per_epoch = std::ceil(static_cast<double>(learnt) / used.at("batch_size").get<double>());
  const double best_step = (best.is_null() ? figures_.at("steps") : best.at("step")).get<double>();
  const double epochs = best_step / steps_per_epoch;
  TokenParts all = parts_;
  all.train.ids.insert(all.train.ids.end(), parts_.validation.ids.begin(), parts_.validation.ids.end());
  all.validation = {};
  const fs::path to = directory / "refit-tokens.safetensors";
  TAILOR_CHECK(write_tokens(all, to));
  job["tokens"] = fs::absolute(to).string();
  job["evaluate_every_epochs"] = 0.0;
  job.erase("evaluate_every_steps");
  if (epochs > 0) {  // 0: method features, which takes no step
    job["settings"]["epochs"] = epochs;
    job["settings"].erase("max_steps");
  }
  if (job.contains("head")) {
    const fs::path head = directory / "refit-head.safetensors";
    TAILOR_CHECK(start_head(all.train, {}, head_c_, head));
    job["head"] = fs::absolute(head).string();
  }
  TAILOR_TRY(run_, run_training(std::move(job), directory / "refit", threads(), "training on all rows", ui_, progress(),
                                cancel_, nullptr));
  refit_ = Json{{"rows", all.train.size()}, {"epochs", epochs}, {"validation_is_held_out", false}};
  for (const char* key : {"steps", "examples", "tokens", "wall_seconds", "cpu_seconds", "excluded_rows", "losses"})
    refit_[key] = run_.result.at(key);
  parts_.train = std::move(all.train);
  return {};
}

Status TuneRecipe::package(TensorType matrices) {
  ui_.stage("making the package");
  const fs::path staging = options_.out / "package.new";
  TAILOR_CHECK(remove_tree(staging));
  TAILOR_CHECK(make_directories(staging));
  const PackageTarget one_label;
  PackageManifest manifest{
      .method = std::string(by_.method.name),
      .settings = figures_.at("settings"),
      .target = one_label,
      .labels = data_.label_names(),
      .text_columns = options_.text_columns,
      .text_template = options_.text_template,
      .data = provenance(data_, parts_.train, refit_.is_null() ? "train" : "train+validation", options_.seed),
      .trial = run_name(options_.out)};
  if (encoder()) {
    TAILOR_TRY(TunedPackage made, package_tuned_encoder(run_, base_, served_, matrices, staging));
    manifest.base = std::move(made.base);
    manifest.serving = kServeTunedEncoder;
  } else {
    TAILOR_TRY(const PromptClassifier classifier,
               load_tuned_decoder(data_, served_, run_, staging, threads(), matrices));
    TAILOR_TRY(TunedPackage made, package_tuned_decoder(run_, served_, classifier, staging));
    manifest.base = std::move(made.base);
    manifest.serving = kServeScoredLabels;
  }
  TAILOR_CHECK(close_package(staging, std::move(manifest), /*include_base_model=*/true));
  return replace_directory(staging, run_directory().package());
}

Status TuneRecipe::prove() {
  TAILOR_TRY(trained_, read_tune_predictions(data_, run_.directory / "test_predictions.safetensors"));
  TAILOR_CHECK(save_predictions(options_.out / "test_predictions.jsonl", trained_, data_.label_names()));
  scores_ = bootstrap_scores(trained_.truth, trained_.predicted, classes(), {.seed = options_.seed});
  TAILOR_TRY(proven_, prove_package(
                          options_, threads(), ui_, [this](std::string_view name) { return ask(name); },
                          [this](TensorType matrices) { return package(matrices); }));
  return {};
}

Result<Json> TuneRecipe::ask(std::string_view name) {
  ui_.stage(fmt::format("asking {}", name));
  TAILOR_TRY(LoadedPackage package, load_package(run_directory().package(), {.threads = threads()}));
  const Stopwatch watch;
  TAILOR_TRY(Matrix p, package.classifier->probabilities(data_.texts_of(parts_.test), progress(), cancel_));
  const double seconds = watch.seconds();
  const Predictions answered = make_predictions(parts_.test.ids, data_.labels_of(parts_.test), std::move(p));
  TAILOR_TRY(const CommonRows common, common_rows(answers_of(trained_), answers_of(answered)));
  std::size_t same = 0;
  for (std::size_t i = 0; i < common.rows.size(); ++i) same += common.a[i] == common.b[i] ? 1 : 0;
  const ScoreIntervals served =
      bootstrap_scores(answered.truth, answered.predicted, classes(), {.seed = options_.seed});
  package.manifest.scores = package_scores(answered.size(), served);
  TAILOR_CHECK(close_package(run_directory().package(), std::move(package.manifest), /*include_base_model=*/true));
  return Json{{"n_scored", answered.size()},
              {"same_labels", same},
              {"metrics", to_json(served)},
              {"seconds_per_row", seconds / static_cast<double>(std::max<std::size_t>(1, answered.size()))},
              {"package_bytes", tree_bytes(run_directory().package())}};
}

Result<TuneSummary> TuneRecipe::finish() {
  Json result = training_figures(by_, options_, threads(), figures_);
  result["test"] = Json{{"n_scored", trained_.size()}, {"metrics", to_json(scores_)}};
  result["served"] = proven_.served;
  if (!proven_.quantized.is_null()) result["quantized"] = proven_.quantized;
  if (distills()) result["teacher"] = taught_.about;
  if (!refit_.is_null()) result["refit"] = refit_;
  TAILOR_TRY(result["data"], read_json(run_directory().data_report()));
  result["split"] =
      Json{{"train", data_.train().size()}, {"validation", parts_.validation.size()}, {"test", parts_.test.size()}};
  Json files{"result.json", "test_predictions.jsonl", "package", "log.txt"};
  if (!names_.empty()) result["split"]["label_names"] = names_.size();
  if (distills()) {
    result["split"]["unlabelled"] = taught_.ids.size();
    files.push_back(kTeacherPredictions);
  }
  TAILOR_CHECK(keep_hugging_face(options_, by_, run_, files));
  return finish_tune_run(options_.out, run_, watch_.seconds(), std::move(files), std::move(result));
}

Result<TuneSummary> go_through(TuneRecipe& recipe) {
  TAILOR_CHECK(recipe.make_ready());
  TAILOR_CHECK(recipe.teach());
  TAILOR_CHECK(recipe.train());
  TAILOR_CHECK(recipe.package());
  TAILOR_CHECK(recipe.prove());
  return recipe.finish();
}

Result<TuneSummary> tune_labels(TuneOptions options, const std::string& command_line, RunUi& ui,
                                const CancelToken& cancel) {
  TuneRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.choose_model());
  TAILOR_CHECK(recipe.read_data());
  TAILOR_CHECK(recipe.write_start(command_line));
  return go_through(recipe);
}

Result<TuneSummary> resume_labels(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel) {
  TuneRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.choose_model());
  TAILOR_CHECK(recipe.read_data_again(run));
  return go_through(recipe);
}

/// None where the task is one label a text.
std::unique_ptr<EncoderTask> encoder_task(const TuneOptions& options, RunUi& ui, const CancelToken& cancel) {
  if (tunes_targets(options)) return target_task(options, ui, cancel);
  if (tunes_tags(options)) return tag_task(options, ui, cancel);
  if (tunes_questions(options)) return question_task(options, ui, cancel);
  return nullptr;
}

}  // namespace

Result<TuneSummary> tune(TuneOptions options, const std::string& command_line, RunUi& ui, const CancelToken& cancel) {
  TAILOR_CHECK(refuse_existing(options.out, "tune"));
  if (tunes_texts(options)) {
    if (!options.refit) return tune_texts(std::move(options), command_line, ui, cancel);
    return Error{ErrorCode::kInvalidArgument, "refit is for texts with labels", "leave it out"};
  }
  if (const auto task = encoder_task(options, ui, cancel)) return task->start(command_line);
  return tune_labels(std::move(options), command_line, ui, cancel);
}

Result<TuneSummary> resume_tune(const fs::path& directory, const Json& given, RunUi& ui, const CancelToken& cancel) {
  TAILOR_TRY(Json run, read_run_json(directory, kTuneRunFormat));
  TAILOR_CHECK(take_changes(run, given, directory));
  TAILOR_TRY(TuneOptions options, tune_options_of_run(run));
  options.out = directory;
  if (tunes_texts(options)) return resume_texts(std::move(options), run, ui, cancel);
  if (const auto task = encoder_task(options, ui, cancel)) return task->resume(run);
  return resume_labels(std::move(options), run, ui, cancel);
}

}  // namespace tailor
