#pragma once
/// TrainerState as JSON, for checkpoints and result.json.

#include <nlohmann/json_fwd.hpp>

#include "core/result.h"
#include "tune/trainer.h"

namespace tailor::tune {

nlohmann::ordered_json to_json(const TrainerState& state);
nlohmann::ordered_json to_json(const TrainerState::Evaluation& evaluation);
Result<TrainerState> state_from_json(const nlohmann::ordered_json& value, const std::string& where);

}  // namespace tailor::tune
