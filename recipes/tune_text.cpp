#include "recipes/tune_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <numeric>
#include <optional>

#include "core/files.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "core/stopwatch.h"
#include "core/system.h"
#include "eval/text_scores.h"
#include "fit/chat_data.h"
#include "fit/prepared_data.h"
#include "fit/ready_model.h"
#include "fit/serving.h"
#include "fit/text_encoder.h"
#include "fit/text_model.h"
#include "fit/tuned_decoder.h"
#include "recipes/run_directory.h"
#include "recipes/tune_steps.h"
#include "recipes/tune_text_teacher.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kUsualMaxTokens = 2048;
constexpr std::uint64_t kAnswerStream = 72;

/// Losses of rows, in nats, and how many tokens each sums over.
struct RowLosses {
  std::vector<std::int64_t> examples;
  std::vector<double> loss, tokens;

  double per_token() const {
    double sum = 0, count = 0;
    for (std::size_t i = 0; i < loss.size(); ++i) {
      sum += loss[i];
      count += tokens[i];
    }
    return count > 0 ? sum / count : 0;
  }
};

Json to_json(const RowLosses& losses) {
  const double loss = losses.per_token();
  return Json{{"loss", loss}, {"perplexity", std::exp(loss)}};
}

template <typename T>
std::vector<T> values_of(const SafeTensor& tensor) {
  std::vector<T> out(tensor.bytes.size() / sizeof(T));
  std::memcpy(out.data(), tensor.bytes.data(), out.size() * sizeof(T));
  return out;
}

Result<RowLosses> read_losses(const fs::path& file) {
  TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(file));
  TAILOR_TRY(const SafeTensor ids, stored.get("row_ids", "I64", 1));
  TAILOR_TRY(const SafeTensor loss, stored.get("losses", "F64", 1));
  TAILOR_TRY(const SafeTensor tokens, stored.get("learnt_tokens", "F64", 1));
  return RowLosses{values_of<std::int64_t>(ids), values_of<double>(loss), values_of<double>(tokens)};
}

/// What is needed before the first token is trained on.
struct Prepared {
  TunedBy by;
  PreparedChat data;
  ReadyModel base, trained_on;  // as it is served; qlora trains on the blocks of the model's own file
  std::optional<TextEncoder> encoder;
  std::size_t max_tokens = 0;
  ChatTokens tokens;
};

TemplateSettings templates_of(const TuneOptions& options) {
  return {options.template_variables, options.template_date};
}

Status choose(const TuneOptions& options, Prepared& p) {
  TAILOR_TRY(p.by, choose_tuning(options, ModelKind::kDecoder));
  return {};
}

Status read(const TuneOptions& options, Prepared& p, RunUi& ui) {
  ui.stage("reading the data");
  TAILOR_TRY(p.data, prepare_chat(options));
  for (const std::string& warning : p.data.warnings) ui.warning(warning);
  return {};
}

/// The model, and whether its template takes what the options say: before anything is written.
Status make_ready(const TuneOptions& options, Prepared& p, RunUi& ui, const ProgressFn& progress) {
  ui.stage(fmt::format("making {} ready", p.by.model.id));
  TAILOR_TRY(p.base, ready_model(p.by.model, serving_use(options, p.by.model), progress));
  p.trained_on = p.base;
  if (p.by.method.own_blocks) {
    TAILOR_TRY(p.trained_on, ready_model(p.by.model, ModelUse::kTraining, progress));
  }
  TAILOR_TRY(p.base, with_added_tokens(std::move(p.base), options.added_tokens));
  TAILOR_TRY(p.trained_on, with_added_tokens(std::move(p.trained_on), options.added_tokens));
  TAILOR_TRY(p.encoder, TextEncoder::load(p.base.gguf, p.data.form, templates_of(options)));
  if (!p.encoder->note().empty()) ui.warning(p.encoder->note());
  const auto context = static_cast<std::size_t>(p.encoder->max_context());
  if (options.max_tokens > context) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--max-tokens {} is more than the {} tokens that {} reads", options.max_tokens, context,
                             p.by.model.id),
                 "lower it, or take a model with a longer context"};
  }
  p.max_tokens = options.max_tokens > 0 ? options.max_tokens : std::min(kUsualMaxTokens, context);
  return {};
}

Status tokenise(Prepared& p, RunUi& ui) {
  ui.stage("tokenising");
  TAILOR_TRY(p.tokens, tokenize_chat(p.data, p.encoder->encoder(), p.encoder->vocabulary(), p.max_tokens));
  for (const std::string& warning : p.tokens.warnings) ui.warning(warning);
  return {};
}

/// What the package says to the test rows.
struct AskedPackage {
  RowLosses losses;
  std::vector<GeneratedAnswer> answers;
  Json figures;  // for result.json
};

class TextRecipe {
 public:
  TextRecipe(TuneOptions options, RunUi& ui, const CancelToken& cancel)
      : options_(std::move(options)), ui_(ui), cancel_(cancel) {}

  Status choose() { return tailor::choose(options_, prepared_); }
  Status read() { return tailor::read(options_, prepared_, ui_); }
  Status make_ready() { return tailor::make_ready(options_, prepared_, ui_, progress()); }
  Status write_start(const std::string& command_line) const;
  Status same_data(const Json& run) const;
  Status teach();  // method distill
  Status train();
  Status package(TensorType matrices = TensorType::kF16);
  Status prove();
  Result<TuneSummary> finish();
  Status tokenise() {
    TAILOR_CHECK(tailor::tokenise(prepared_, ui_));
    prepared_.encoder.reset();  // its vocabulary is not needed while the model is trained
    return {};
  }

 private:
  RunDirectory run_directory() const { return {options_.out}; }
  int threads() const { return options_.threads > 0 ? options_.threads : system_info().cores; }
  ProgressFn progress() const {
    return [this](const Progress& p) { ui_.progress(p, watch_.seconds(), 0); };
  }
  DoneFn steps_of(std::string_view stage, std::size_t total) const {
    return [this, stage = std::string(stage), total](std::size_t done) {
      progress()({stage, static_cast<double>(done), static_cast<double>(total)});
    };
  }
  Result<RowLosses> losses_of(TextModel& model, std::string_view stage);
  Result<std::vector<GeneratedAnswer>> answers_of(TextModel& model, std::span<const std::size_t> examples,
                                                  std::string_view stage);
  /// Asks the package, and writes its figures into its manifest.
  Result<AskedPackage> ask_package(std::string_view name);
  Status write_answers();

  TuneOptions options_;
  RunUi& ui_;
  const CancelToken& cancel_;
  const Stopwatch watch_;
  Prepared prepared_;
  Json teacher_;  // of result.json
  TuneRun run_;
  TextSettings settings_;
  RowLosses trained_, untouched_, served_;  // served_: with the weights as trained
  ProvenPackage proven_;
  std::vector<std::size_t> asked_;  // examples of the test part that are answered
  std::vector<std::string> wanted_;
  std::vector<GeneratedAnswer> before_, answers_;  // of the untouched model, and of the package as it is left
  TextScores scores_before_;
};

Status TextRecipe::write_start(const std::string& command_line) const {
  TAILOR_CHECK(make_directories(options_.out));
  return write_run_json(run_directory().options(), kTuneRunFormat, kTuneRunVersion, command_line, to_json(options_),
                        prepared_.data.file_names, prepared_.data.file_hashes);
}

/// The split is a function of the files and the seed.
Status TextRecipe::same_data(const Json& run) const {
  return require_unchanged(prepared_.data.file_names, prepared_.data.file_hashes,
                           run.at("file_hashes").get<std::vector<std::string>>());
}

Status TextRecipe::teach() {
  if (prepared_.by.method.name != "distill") return {};
  if (!options_.unlabelled_file.empty())
    return Error{ErrorCode::kInvalidArgument, "--unlabelled is for data with labels",
                 "conversations: put the questions into the data, with any answer; the teacher's takes its place"};
  TAILOR_TRY(teacher_, teach_texts(options_, prepared_.data, threads(), ui_, progress(), cancel_));
  return {};
}

Status TextRecipe::train() {
  const fs::path directory = options_.out / kTrainDirectory;
  TAILOR_CHECK(make_directories(directory));
  const TokenFile& file = prepared_.tokens.file;
  TAILOR_CHECK(write_token_file(options_.out / kTokensFile, file));
  const bool validates = std::find(file.parts.begin(), file.parts.end(), TokenPart::kValidation) != file.parts.end();
  Json job = tune_job(options_, prepared_.by.method.name, validates);
  job["task"] = "causal-lm";
  job["base"] = fs::absolute(prepared_.trained_on.gguf).string();
  TAILOR_TRY(job["settings"], job_settings(options_, prepared_.trained_on.gguf));
  if (!options_.metric.empty()) job["metric"] = options_.metric;
  TrainingLog log = training_log(options_.out, /*labels=*/false);
  TAILOR_TRY(run_,
             run_training(std::move(job), directory / "run", threads(), "training", ui_, progress(), cancel_, &log));
  return {};
}

Status TextRecipe::package(TensorType matrices) {
  ui_.stage("making the package");
  const fs::path staging = options_.out / "package.new";
  TAILOR_CHECK(remove_tree(staging));
  TAILOR_CHECK(make_directories(staging));
  settings_.form = prepared_.data.form;
  if (settings_.form == ExampleForm::kChat) settings_.templates = templates_of(options_);
  // Half as much again as the longest answer that was learnt from.
  settings_.max_tokens = static_cast<int>(std::max<std::int64_t>(64, prepared_.tokens.longest_answer * 3 / 2));
  TAILOR_CHECK(settings_.save(staging));
  TAILOR_CHECK(make_decoder_files(run_, prepared_.base, staging, matrices));
  TAILOR_TRY(TunedPackage made, package_adapter(run_, prepared_.base, staging));
  Json data_files = Json::array();
  for (std::size_t i = 0; i < prepared_.data.file_names.size(); ++i) {
    data_files.push_back(Json{{"file", fs::path(prepared_.data.file_names[i]).filename().string()},
                              {"sha256", prepared_.data.file_hashes[i]}});
  }
  const PackageTarget no_labels;
  PackageManifest manifest{.method = std::string(prepared_.by.method.name),
                           .serving = std::string(kServeText),
                           .base = std::move(made.base),
                           .settings = run_.result.at("settings"),
                           .target = no_labels,
                           .data = Json{{"files", data_files},
                                        {"fitted_on", "train"},
                                        {"rows", prepared_.data.of(TokenPart::kTrain).size()},
                                        {"seed", options_.seed}},
                           .trial = run_name(options_.out)};
  TAILOR_CHECK(close_package(staging, std::move(manifest), /*include_base_model=*/true));
  return replace_directory(staging, run_directory().package());
}

Result<RowLosses> TextRecipe::losses_of(TextModel& model, std::string_view stage) {
  ui_.stage(stage);
  RowLosses out;
  const TokenFile& file = prepared_.tokens.file;
  std::vector<ScoredText> rows;
  for (std::size_t i = 0; i < file.rows(); ++i) {
    if (file.parts[i] != TokenPart::kTest) continue;
    rows.push_back({file.row(i), file.mask(i)});
    out.examples.push_back(file.row_ids[i]);
  }
  TAILOR_TRY(const auto losses, model.losses(rows, steps_of(stage, rows.size()), cancel_));
  for (const std::vector<double>& row : losses) {
    out.loss.push_back(std::accumulate(row.begin(), row.end(), 0.0));
    out.tokens.push_back(static_cast<double>(row.size()));
  }
  return out;
}

Result<std::vector<GeneratedAnswer>> TextRecipe::answers_of(TextModel& model, std::span<const std::size_t> examples,
                                                            std::string_view stage) {
  ui_.stage(stage);
  std::vector<TextRequest> requests;
  for (const std::size_t i : examples) requests.push_back(last_request(prepared_.data.examples[i]));
  const DoneFn done = steps_of(stage, requests.size());
  std::size_t ended = 0;
  const auto count = [&](std::size_t, const GeneratedText&) -> Status {
    done(++ended);
    return {};
  };
  TAILOR_TRY(const auto texts, model.answers(requests, {.max_tokens = settings_.max_tokens}, count, cancel_));
  std::vector<GeneratedAnswer> out;
  for (const GeneratedText& text : texts) out.push_back({text.text, text.finish == FinishReason::kStop});
  return out;
}

Status TextRecipe::prove() {
  TAILOR_TRY(trained_, read_losses(run_.directory / "test_predictions.safetensors"));
  // Texts without a question have nothing to be answered.
  asked_ = prepared_.data.form == ExampleForm::kText ? std::vector<std::size_t>{} : prepared_.data.of(TokenPart::kTest);
  Rng rng(options_.seed, kAnswerStream);
  rng.shuffle(asked_);
  asked_.resize(std::min(asked_.size(), options_.answers));
  std::sort(asked_.begin(), asked_.end());
  {
    TAILOR_TRY(TextModel untouched, TextModel::load(prepared_.base.gguf, {}, settings_, threads()));
    for (const std::size_t i : asked_) {
      TAILOR_TRY(wanted_.emplace_back(), wanted_answer(prepared_.data.examples[i], untouched.encoder()));
    }
    TAILOR_TRY(untouched_, losses_of(untouched, "scoring the untouched model"));
    TAILOR_TRY(before_, answers_of(untouched, asked_, "asking the untouched model"));
  }
  scores_before_ = score_texts(before_, wanted_);
  std::vector<AskedPackage> asked;
  const auto ask = [&](std::string_view name) -> Result<Json> {
    TAILOR_TRY(AskedPackage answered, ask_package(name));
    return asked.emplace_back(std::move(answered)).figures;
  };
  TAILOR_TRY(proven_,
             prove_package(options_, threads(), ui_, ask, [this](TensorType matrices) { return package(matrices); }));
  answers_ = asked.back().answers;
  served_ = std::move(asked[asked.size() - (options_.quantize.empty() ? 1 : 2)].losses);
  return {};
}

Result<AskedPackage> TextRecipe::ask_package(std::string_view name) {
  const fs::path directory = run_directory().package();
  TAILOR_TRY(TextModel package, TextModel::load_package(directory, threads()));
  AskedPackage out;
  TAILOR_TRY(out.losses, losses_of(package, fmt::format("scoring {}", name)));
  TAILOR_TRY(out.answers, answers_of(package, asked_, fmt::format("asking {}", name)));
  PackageManifest manifest = package.manifest();
  manifest.scores = Json{{"n_scored", out.losses.loss.size()}, {"loss", out.losses.per_token()}};
  TAILOR_CHECK(close_package(directory, std::move(manifest), /*include_base_model=*/true));
  double largest = 0;  // difference of a row's loss a token
  for (std::size_t i = 0; i < trained_.loss.size(); ++i)
    largest = std::max(largest, std::abs(trained_.loss[i] - out.losses.loss[i]) / std::max(1.0, trained_.tokens[i]));
  out.figures = to_json(out.losses);
  out.figures["largest_difference"] = largest;
  out.figures["answers"] = to_json(score_texts(out.answers, wanted_));
  out.figures["package_bytes"] = tree_bytes(directory);
  return out;
}

/// test_predictions.jsonl: every test row's loss as trained and as served. answers.jsonl: what was answered.
Status TextRecipe::write_answers() {
  const auto line_of = [&](std::int64_t example) {
    return prepared_.data.examples[static_cast<std::size_t>(example)].line;
  };
  std::string rows, answers;
  for (std::size_t i = 0; i < trained_.loss.size(); ++i) {
    rows += dump_json({{"line", line_of(trained_.examples[i])},
                       {"loss", trained_.loss[i]},
                       {"learnt_tokens", trained_.tokens[i]},
                       {"served_loss", served_.loss[i]},
                       {"untouched_loss", untouched_.loss[i]}}) +
            "\n";
  }
  TAILOR_CHECK(write_file_atomic(options_.out / "test_predictions.jsonl", rows));
  for (std::size_t i = 0; i < asked_.size(); ++i) {
    const Question question = last_question(prepared_.data.examples[asked_[i]]);
    Json messages = Json::array();
    for (const ChatMessage& m : question.messages) {
      messages.push_back({{"role", m.role}, {"content", m.content}});
      if (!m.tool_calls.is_null()) messages.back()["tool_calls"] = m.tool_calls;
    }
    answers += dump_json({{"line", line_of(static_cast<std::int64_t>(asked_[i]))},
                          {"prompt", question.messages.empty() ? Json(question.raw) : messages},
                          {"wanted", wanted_[i]},
                          {"untouched", before_[i].text},
                          {"tuned", answers_[i].text}}) +
               "\n";
  }
  return write_file_atomic(options_.out / "answers.jsonl", answers);
}

Result<TuneSummary> TextRecipe::finish() {
  TAILOR_CHECK(write_answers());
  Json result = training_figures(prepared_.by, options_, threads(), run_.result);
  result["data"] = Json{{"shape", prepared_.data.shape},
                        {"files", prepared_.data.file_names},
                        {"train", prepared_.data.of(TokenPart::kTrain).size()},
                        {"validation", prepared_.data.of(TokenPart::kValidation).size()},
                        {"test", prepared_.data.of(TokenPart::kTest).size()},
                        {"learnt_tokens", prepared_.tokens.learnt},
                        {"max_tokens", prepared_.max_tokens},
                        {"truncated", prepared_.tokens.truncated},
                        {"dropped", prepared_.tokens.dropped}};
  result["test"] = to_json(trained_);
  result["test"]["n_scored"] = trained_.loss.size();
  result["untouched"] = to_json(untouched_);
  result["untouched"]["answers"] = to_json(scores_before_);
  result["served"] = proven_.served;
  if (!proven_.quantized.is_null()) result["quantized"] = proven_.quantized;
  Json files{"result.json", "test_predictions.jsonl", "answers.jsonl", "package", "log.txt"};
  if (!teacher_.is_null()) {
    result["teacher"] = teacher_;
    files.push_back(kTeacherAnswers);
  }
  return finish_tune_run(options_.out, run_, watch_.seconds(), std::move(files), std::move(result));
}

Result<TuneSummary> go_through(TextRecipe& recipe) {
  TAILOR_CHECK(recipe.teach());
  TAILOR_CHECK(recipe.tokenise());
  TAILOR_CHECK(recipe.train());
  TAILOR_CHECK(recipe.package());
  TAILOR_CHECK(recipe.prove());
  return recipe.finish();
}

}  // namespace

bool tunes_texts(const TuneOptions& options) {
  if (!options.task.empty()) return false;
  if (!options.label_column.empty() || !options.text_columns.empty() || !options.text_template.empty()) return false;
  const std::string ending = options.data.extension().string();
  return ending == ".jsonl" || ending == ".json" || looks_like_chat_data(options.data);
}

Result<TuneSummary> tune_texts(TuneOptions options, const std::string& command_line, RunUi& ui,
                               const CancelToken& cancel) {
  if (options.template_date.empty()) options.template_date = template_date(std::time(nullptr));
  TextRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.choose());
  TAILOR_CHECK(recipe.read());
  TAILOR_CHECK(recipe.make_ready());
  TAILOR_CHECK(recipe.write_start(command_line));
  return go_through(recipe);
}

Result<TuneSummary> resume_texts(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel) {
  TextRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.choose());
  TAILOR_CHECK(recipe.read());
  TAILOR_CHECK(recipe.same_data(run));
  TAILOR_CHECK(recipe.make_ready());
  return go_through(recipe);
}

Result<TextPreview> preview_texts(const TuneOptions& options, std::size_t rows, RunUi& ui) {
  Prepared p;
  TAILOR_CHECK(choose(options, p));
  TAILOR_CHECK(read(options, p, ui));
  TAILOR_CHECK(make_ready(options, p, ui, {}));
  TAILOR_CHECK(tokenise(p, ui));
  const Tokenizer& tokenizer = p.encoder->tokenizer();
  const TokenFile& file = p.tokens.file;
  TextPreview out;
  out.model = p.by.model.id;
  out.shape = p.data.shape;
  out.train = p.data.of(TokenPart::kTrain).size();
  out.validation = p.data.of(TokenPart::kValidation).size();
  out.test = p.data.of(TokenPart::kTest).size();
  out.rows = file.rows();
  out.tokens = file.tokens.size();
  out.learnt = p.tokens.learnt;
  out.longest = p.tokens.longest;
  out.max_tokens = p.max_tokens;
  out.truncated = p.tokens.truncated;
  out.dropped = p.tokens.dropped;
  for (std::size_t i = 0; i < std::min(rows, file.rows()); ++i) {
    const auto tokens = file.row(i);
    const auto mask = file.mask(i);
    ShownRow shown;
    shown.line = p.data.examples[static_cast<std::size_t>(file.row_ids[i])].line;
    shown.tokens = tokens.size();
    shown.cut = tokens.size() == p.max_tokens && !tokenizer.ends_generation(tokens.back());
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const bool learnt = t > 0 && mask[t] != 0;
      shown.learnt += learnt ? 1 : 0;
      if (shown.runs.empty() || shown.runs.back().learnt != learnt) shown.runs.push_back({learnt, {}});
      shown.runs.back().tokens.push_back(tokenizer.decode(tokens.subspan(t, 1), true));
    }
    out.shown.push_back(std::move(shown));
  }
  return out;
}

}  // namespace tailor
