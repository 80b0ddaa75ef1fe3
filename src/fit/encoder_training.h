#pragma once
/// One training of an encoder inside a trial, by tailor-tune.

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
  std::filesystem::path head;  // where the head starts
};

struct EncoderTraining {
  std::filesystem::path directory;  // of everything that it left
  TuneRun run;                      // whose answers, encoder and head are packaged
  double score = 0;                 // the user's metric on `validation`
  Predictions validation;
};

/// What is trained on: its texts, and the tokens of them in a file.
struct EncoderRows {
  const TrialRows& rows;
  const std::vector<std::size_t>& train;       // positions in rows
  const std::vector<std::size_t>& validation;  // may be empty
  std::filesystem::path tokens;
};

/// `base`: the untouched encoder in the precision of its file.
Result<EncoderTraining> train_encoder(const TrialContext& context, const TunedSearch& search, const ReadyModel& base,
                                      const EncoderRows& rows, const EncoderTrainSpec& spec);

}  // namespace tailor
