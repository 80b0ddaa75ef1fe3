#pragma once
/// One training of an encoder inside a trial: by tailor-tune alone, or by contrast with a logistic regression after it.

#include <filesystem>
#include <string>

#include "fit/method_support.h"
#include "fit/tuned_encoder.h"
#include "fit/tuned_search.h"

namespace tailor {

inline constexpr int kEncoderBatch = 32;

struct EncoderTrainSpec {
  double rate = 0;
  double epochs = 0;
  bool evaluate = false;       // there are validation rows
  std::string name;            // of its directory in the trial's
  std::string stage;           // for the user
  std::filesystem::path head;  // where the head starts; empty: random. Contrastive: none
  double head_c = 0;           // contrastive: of the regression; 0: chosen on validation rows
};

struct EncoderTraining {
  std::filesystem::path directory;  // of everything that it left
  TuneRun run;                      // whose answers and head are packaged
  Json figures;                     // result.json of the training that took the time
  ReadyModel trained_on, served;    // the encoder that `run` saw as its untouched base
  double score = 0;                 // the user's metric on `validation`
  double head_c = 0;                // contrastive: of the regression
  Predictions validation;
};

/// What is trained on: its texts, and the tokens of them in a file.
struct EncoderRows {
  const TrialRows& rows;
  const std::vector<std::size_t>& train;       // positions in rows
  const std::vector<std::size_t>& validation;  // may be empty
  std::filesystem::path tokens;
};

/// `trained_on`, `served`: the untouched encoder in the precision of its file and as it serves.
Result<EncoderTraining> train_encoder(const TrialContext& context, const TunedSearch& search,
                                      const ReadyModel& trained_on, const ReadyModel& served, const EncoderRows& rows,
                                      const EncoderTrainSpec& spec);

/// The trained encoder and its head in the trial's package.
Result<TunedPackage> package_encoder(const TrialContext& context, const EncoderTraining& training);

}  // namespace tailor
