#pragma once
/// The table of candidates: every method that `tailor fit` can try. A method joins by one entry here and its file
/// method_<name>.cpp, a method of tailor-tune by one row in tuned_search.cpp; nothing else names methods.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/cancel.h"
#include "core/json.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/result.h"
#include "eval/metrics.h"
#include "fit/package.h"
#include "fit/predictions.h"
#include "fit/prepared_data.h"
#include "model/catalogue.h"

namespace tailor {

/// What this machine was measured to do at the start of the run; estimates and plans come from it.
struct MachineSpeed {
  double gemm_gflops = 100;                  // f32 matrix product, all threads of the run
  double decoder_tokens_per_second = 500;    // prompt tokens of the default decoder, all threads
  double prompting_tokens_per_second = 500;  // the same in the type that prompts are answered with
  double decoder_parameters = 1.35e8;        // of the decoder that was measured
  double encoder_tokens_per_second = 4000;   // tokens of the default encoder
  double encoder_parameters = 2.2e7;
};
Json to_json(const MachineSpeed& speed);
MachineSpeed machine_speed_from_json(const Json& json);

/// Estimated cost of one candidate on this data and machine, before anything is spent.
struct Estimate {
  double fit_seconds = 0;            // wanted: full search and training
  double min_fit_seconds = 0;        // below this the candidate makes no sense
  double score_seconds_per_row = 0;  // answering one row of the test part
  double refit_seconds = 0;          // training once more on train + validation
  std::uint64_t memory_bytes = 0;    // peak of its process
};

/// A model as a candidate needs it: catalogued, with the GGUF that llama.cpp runs (imported or requantised where
/// needed).
struct TrialModel {
  ModelInfo info;
  std::filesystem::path directory_or_file;  // as the user gave it
};

struct Candidate;

/// Everything a candidate may see while it is fitted. Test rows are not in it.
struct TrialContext {
  const Candidate& candidate;
  const PreparedData& data;
  const FitOptions& options;
  std::optional<TrialModel> model;
  MachineSpeed speed;
  double seconds = 0;               // share of the budget, for the plan
  std::optional<Json> plan;         // given: follow it and do not look at the clock (resume, replay)
  std::optional<Json> settings;     // given: no search; fit these settings on `fit_rows` (the refit of the winner)
  RowSet fit_rows;                  // rows to fit on
  RowSet validation_rows;           // empty with k-fold and in a refit
  std::filesystem::path directory;  // the trial's own
  std::filesystem::path package;    // directory for the package's files; exists and is empty
  std::filesystem::path cache;      // shared by the trials of a run
  int threads = 1;
  const ProgressFn& progress;
  const CancelToken& cancel;
  Logger& log;
};

/// One setting tried in the search and what it scored on validation.
struct SearchPoint {
  Json settings;
  double score = 0;  // the user's metric on validation, larger is better
  double seconds = 0;
  std::size_t rows = 0;  // validation rows it was scored on
};

struct TrialOutcome {
  Json settings = Json::object();  // chosen
  Json plan = Json::object();      // sizes that depended on time: replay follows them
  std::vector<SearchPoint> search;
  Predictions validation;  // of the chosen settings, on validation rows or out of fold
  BaseModel base;
  std::uint64_t trained_bytes = 0;  // what was trained, without the base model
  double shared_seconds = 0;        // cached work of other trials that this one would have had to do itself
  std::vector<std::string> notes;   // for the report, one sentence each
};

enum class ModelRole { kNone, kEncoder, kDecoder, kAny };

struct Candidate {
  std::string_view method;  // "features": name on the command line and in result.json
  std::string_view title;   // "Frozen embeddings with logistic regression"
  ModelRole role;
  bool trains_network;       // needs tailor-tune
  int priority;              // larger: left out first where the budget is small
  int simplicity;            // smaller is simpler to run and explain; breaks ties of cost
  std::string_view changes;  // what a person can read of what was changed
  Estimate (*estimate)(const TrialContext& context);
  Result<TrialOutcome> (*run)(TrialContext& context);
  Result<std::unique_ptr<Classifier>> (*load)(const std::filesystem::path& package, const PackageManifest& manifest,
                                              const PredictOptions& options);
  bool usual = true;            // one of those that come first; the others share what time they leave over
  std::string_view needs = "";  // what no run of fit has; not empty: it cannot run, and this is why
};

const std::vector<Candidate>& candidate_table();
const Candidate* find_candidate_method(std::string_view method);

/// The candidates that --method asks for, in the table's order, for models of these kinds. Names as in the table; a
/// method of tuning that has no model of its kind means the one on decoders ("dora": "dora-decoder"). "usual": the
/// usual ones; "all", or nothing: every one that has a model. Errors: a name that is not in the table.
struct ModelKinds {
  bool encoder = false, decoder = false;
};
Result<std::vector<const Candidate*>> choose_candidates(const std::vector<std::string>& methods, ModelKinds models);

}  // namespace tailor
