#pragma once
/// Everything a killed run needs to go on exactly: values, optimiser, moving average, and the trainer's own state, in
/// one file that is written beside and renamed. The data order and the dropout masks are functions of the step and need
/// no state.

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "core/result.h"
#include "tune/adamw.h"
#include "tune/parameters.h"
#include "tune/weight_average.h"

namespace tailor::tune {

/// File name inside the job's output directory.
std::filesystem::path checkpoint_file(const std::filesystem::path& out);
/// Best values carry their step: a killed run may leave newer ones than its checkpoint knows of.
std::filesystem::path best_file(const std::filesystem::path& out, std::int64_t step);
Status remove_other_best_files(const std::filesystem::path& out, std::int64_t step_to_keep);

/// `state` is the trainer's (step, history, best, …); `fingerprint` names what must be equal to resume.
Status write_checkpoint(const std::filesystem::path& file, const ParameterSet& parameters, const AdamW& optimiser,
                        const WeightAverage& average, const nlohmann::ordered_json& state,
                        const std::string& fingerprint);

/// Fills parameters, optimiser and average and returns the state. A checkpoint of another model, data or setting is
/// kInvalidArgument and says so; nothing is changed then.
Result<nlohmann::ordered_json> read_checkpoint(const std::filesystem::path& file, ParameterSet& parameters,
                                               AdamW& optimiser, WeightAverage& average,
                                               const std::string& fingerprint);

/// Values alone (the best so far).
Status write_values(const std::filesystem::path& file, const ParameterSet& parameters, double decay);
/// Returns the decay that was stored.
Result<double> read_values(const std::filesystem::path& file, ParameterSet& parameters);

}  // namespace tailor::tune
